"""Real images: the handwritten digits that come with scikit-learn; nothing is downloaded."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH_SIZE = 64
# One image is then 0.22 points of test accuracy.
_TEST_SHARE = 0.25
_BRIGHTEST = 16.0  # the images hold counts from 0 to 16
# Streams of random numbers that must not depend on each other.
_ORDER, _SHIFT = 1, 2


class Split(NamedTuple):
    """Images and labels of one part of the data."""

    index: np.ndarray  # int64 [n], rows of the original data
    image: np.ndarray  # float32 [n, 8, 8, 1], in [0, 1]
    label: np.ndarray  # int32 [n], 0 to 9


class Batch(NamedTuple):
    """The input of one training step."""

    image: np.ndarray  # float32 [BATCH_SIZE, 8, 8, 1]
    label: np.ndarray  # int32 [BATCH_SIZE]
    weight: np.ndarray  # float32 [BATCH_SIZE], the weight of each example in the loss


def load_splits(seed: int) -> tuple[Split, Split]:
    """Return the digits as training and test splits, with equal shares of each digit."""
    digits: Any = load_digits()  # a Bunch, but its annotation allows other types too
    image = (digits.images / _BRIGHTEST).astype(np.float32)[..., np.newaxis]
    label = digits.target.astype(np.int32)
    parts: Any = train_test_split(
        np.arange(len(label)), test_size=_TEST_SHARE, stratify=label, random_state=seed
    )
    train, test = (Split(index=rows, image=image[rows], label=label[rows]) for rows in parts)
    return train, test


def batch_at(step: int, train: Split, *, seed: int) -> Batch:
    """Return the batch of a step (the first is 1): a pure function of step and seed.

    Every epoch has its own order, and every image is moved by up to one pixel in each direction, so
    that the loss does not fall to zero and the gradient norm keeps its level.
    """
    per_epoch = len(train.label) // BATCH_SIZE
    epoch, place = divmod(step - 1, per_epoch)
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(train.label))
    rows = order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
    shift = np.random.default_rng([seed, _SHIFT, step]).integers(-1, 2, size=(len(rows), 2))
    return Batch(
        image=_move(train.image[rows], shift),
        label=train.label[rows],
        weight=np.ones(len(rows), np.float32),
    )


def _move(images: np.ndarray, shift: np.ndarray) -> np.ndarray:
    # Dark pixels come in at the edge.
    number, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = np.arange(height)[np.newaxis, :] + 1 + shift[:, :1]
    columns = np.arange(width)[np.newaxis, :] + 1 + shift[:, 1:]
    return padded[np.arange(number)[:, None, None], rows[:, :, None], columns[:, None, :]]
