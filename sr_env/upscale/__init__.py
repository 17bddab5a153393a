"""Enlarging pictures of any size."""
