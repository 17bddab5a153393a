"""Supervised training of renderers and predictors."""
