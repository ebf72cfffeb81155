"""Points around eight centers on a circle, which a collapsing generator cannot cover."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PLACES = 8
RADIUS = 2.0
SPREAD = 0.1  # standard deviation around a center


class Batch(NamedTuple):
    """The data of one critic step."""

    points: np.ndarray  # [B, 2] float32


def places() -> np.ndarray:
    """Return the centers ``[8, 2]``, float32."""
    angle = 2 * np.pi * np.arange(PLACES) / PLACES
    return (RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


def sample(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return points ``[size, 2]``, float32, each around one of the centers."""
    chosen = places()[rng.integers(PLACES, size=size)]
    return chosen + SPREAD * rng.standard_normal((size, 2), np.float32)


def batches(*, batch_size: int, steps: int, seed: int) -> Iterator[Batch]:
    """Yield batches of new points."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield Batch(sample(rng, batch_size))
