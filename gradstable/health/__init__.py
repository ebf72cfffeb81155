"""Read the state: numbers, sentences, and the end of the line."""

from gradstable.health.check import TrainingDiverged, check
from gradstable.health.explain import explain
from gradstable.health.read import health

__all__ = ["TrainingDiverged", "check", "explain", "health"]
