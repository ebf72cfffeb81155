"""Images of handwritten digits, 8 by 8 pixels, which come with scikit-learn."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

ROWS, COLUMNS, CLASSES = 8, 8, 10
# Streams of random numbers that must not depend on each other.
_SPLIT, _DRAW = 0, 1


class Batch(NamedTuple):
    """Images and their labels."""

    images: np.ndarray  # [B, rows, columns] float32, from 0 to 1
    labels: np.ndarray  # [B] int32


def split(*, held_out: int, seed: int) -> tuple[Batch, Batch]:
    """Return the 1797 images in two parts, for training and held out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(labels))
    everything = Batch(
        (images[order].reshape(-1, ROWS, COLUMNS) / 16).astype(np.float32),
        labels[order].astype(np.int32),
    )
    held = Batch(*(field[:held_out] for field in everything))
    return Batch(*(field[held_out:] for field in everything)), held


def batches(data: Batch, *, batch_size: int, steps: int, seed: int) -> Iterator[Batch]:
    """Yield batches of images drawn with replacement."""
    rng = np.random.default_rng([seed, _DRAW])
    for _ in range(steps):
        rows = rng.integers(len(data.labels), size=batch_size)
        yield Batch(*(field[rows] for field in data))
