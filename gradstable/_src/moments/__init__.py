"""Moment estimators: gradients in, scaled directions out."""
