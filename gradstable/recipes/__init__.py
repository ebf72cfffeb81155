"""Assembled optimizers, guard included: composition only."""

from gradstable.recipes.adam import adamw

__all__ = ["adamw"]
