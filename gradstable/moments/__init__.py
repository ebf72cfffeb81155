"""Moment estimators: gradients in, scaled directions out."""

from gradstable.moments.adam import scale_by_adam

__all__ = ["scale_by_adam"]
