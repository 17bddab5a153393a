"""Measuring renderers, predictors and actors."""
