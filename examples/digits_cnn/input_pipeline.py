"""The digits that come with scikit-learn: split, shuffled, and shifted by up to one pixel."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

_VALIDATION, _TEST = 240, 360
# Streams of random numbers that must not depend on each other.
_SPLIT, _ORDER, _SHIFT = 0, 1, 2


class Batch(NamedTuple):
    """The data of one step."""

    image: np.ndarray  # float32 [n, 8, 8, 1], in [0, 1]
    label: np.ndarray  # int32 [n], 0 to 9


class Splits(NamedTuple):
    """The three parts of the data."""

    train: Batch
    validation: Batch
    test: Batch


def load(seed: int) -> Splits:
    """Return 1197 images for training, 240 for early stopping, and 360 for testing."""
    digits: Any = load_digits()
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(digits.target))
    image = (digits.images[order] / 16.0).astype(np.float32)[..., np.newaxis]
    label = digits.target[order].astype(np.int32)
    first, second = _VALIDATION, _VALIDATION + _TEST
    parts = (slice(second, None), slice(0, first), slice(first, second))
    return Splits(*(Batch(image[part], label[part]) for part in parts))


def batches(train: Batch, *, steps: int, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield shuffled batches, every epoch in a new order and with new shifts."""
    per_epoch = len(train.label) // batch_size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(train.label))
        rows = order[place * batch_size : (place + 1) * batch_size]
        shift = np.random.default_rng([seed, _SHIFT, step]).integers(-1, 2, size=(len(rows), 2))
        yield Batch(move(train.image[rows], shift), train.label[rows])


def move(images: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift each image by -1, 0, or 1 pixel in both directions, filling the edge with dark."""
    number, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = np.arange(height) + 1 + shift[:, :1]
    columns = np.arange(width) + 1 + shift[:, 1:]
    return padded[np.arange(number)[:, None, None], rows[:, :, None], columns[:, None, :]]
