"""The digits that come with scikit-learn, as rows of 64 pixels."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

_TEST = 360
# Streams of random numbers that must not depend on each other.
_SPLIT, _ORDER = 0, 1


class Batch(NamedTuple):
    """The data of one step."""

    x: np.ndarray  # float32 [n, 64], in [0, 1]
    label: np.ndarray  # int32 [n], 0 to 9


def load(seed: int) -> tuple[Batch, Batch]:
    """Return 1437 images for training and 360 for testing."""
    digits: Any = load_digits()
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(digits.target))
    x = (digits.data[order] / 16.0).astype(np.float32)
    label = digits.target[order].astype(np.int32)
    return Batch(x[_TEST:], label[_TEST:]), Batch(x[:_TEST], label[:_TEST])


def batches(train: Batch, *, steps: int, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield shuffled batches, every epoch in a new order."""
    per_epoch = len(train.label) // batch_size
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(train.label))
        rows = order[place * batch_size : (place + 1) * batch_size]
        yield Batch(train.x[rows], train.label[rows])
