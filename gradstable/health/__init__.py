"""Read the state: numbers, sentences, and the end of the line."""

from gradstable.health.check import TrainingDiverged, check
from gradstable.health.explain import explain
from gradstable.health.read import health
from gradstable.health.updated import has_updated

__all__ = ["TrainingDiverged", "check", "explain", "has_updated", "health"]
