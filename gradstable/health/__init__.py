"""Read the state: numbers, sentences, and the end of the line."""

from gradstable.health.explain import TrainingDiverged, check, explain
from gradstable.health.read import health

__all__ = ["TrainingDiverged", "check", "explain", "health"]
