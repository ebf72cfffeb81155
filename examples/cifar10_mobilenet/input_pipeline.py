"""From image bytes to batches: CIFAR-10 if its path is given, otherwise rendered shapes."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.cifar10_mobilenet import cifar_binary, stand_in
from examples.cifar10_mobilenet.cifar_binary import Images

# How many rendered images stand in, for training and for testing.
STAND_IN = (6000, 2000)
_MARGIN = 4  # maximum shift of an image by augmentation, in pixels


class Batch(NamedTuple):
    """The data of one step."""

    image: np.ndarray  # float32 [n, 32, 32, 3], mean 0 and std 1 over the training set
    label: np.ndarray  # int32 [n]


class Dataset(NamedTuple):
    """Both sets, and the mean and standard deviation of each channel of the training images."""

    train: Images
    test: Images
    mean: np.ndarray  # float32 [3]
    std: np.ndarray  # float32 [3]
    name: str  # "CIFAR-10" or "stand-in"


@functools.lru_cache(maxsize=1)  # all contestants train on the same images
def load(data_dir: Path | None, *, seed: int, md5: str | None = cifar_binary.MD5) -> Dataset:
    """Return CIFAR-10 from ``data_dir``, or the stand-in if that is ``None``."""
    if data_dir is not None:
        return dataset(*cifar_binary.load(data_dir, md5=md5))
    train = stand_in.shapes(STAND_IN[0], seed=2 * seed)
    test = stand_in.shapes(STAND_IN[1], seed=2 * seed + 1)
    return dataset(train, test, name="stand-in")


def dataset(train: Images, test: Images, *, name: str = "CIFAR-10") -> Dataset:
    """Return both sets with the statistics of the first."""
    # Take the mean of each image first, to avoid a floating-point copy of the set.
    means = train.image.mean(axis=(1, 2))
    squares = np.stack([np.square(x, dtype=np.float32).mean(axis=(0, 1)) for x in train.image])
    mean = means.mean(axis=0)
    std = np.sqrt(squares.mean(axis=0) - mean**2)
    return Dataset(train, test, mean.astype(np.float32), std.astype(np.float32), name)


def batches(data: Dataset, *, size: int, seed: int, augment: bool = True) -> Iterator[Batch]:
    """Yield endless batches, each epoch in its own order.

    Args:
      data: from ``load``.
      size: images per batch; the remainder at the end of an epoch is dropped.
      seed: for the order and the augmentation.
      augment: whether half of the images are mirrored, and all shifted by up to four pixels.
    """
    count = len(data.train.label)
    if size > count:
        raise ValueError(f"a batch of {size} from {count} images: lower batch_size")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            rows = order[start : start + size]
            image = data.train.image[rows]
            if augment:
                image = _shift(_mirror(image, rng), rng)
            yield Batch(normalize(image, data), data.train.label[rows])


def test_batches(data: Dataset, *, size: int) -> Iterator[Batch]:
    """Yield the test images once, in order, unaugmented; the last batch may be smaller."""
    for start in range(0, len(data.test.label), size):
        part = slice(start, start + size)
        yield Batch(normalize(data.test.image[part], data), data.test.label[part])


def normalize(image: np.ndarray, data: Dataset) -> np.ndarray:
    """Return bytes as float32, standardized with the statistics of the training set."""
    return (image.astype(np.float32) - data.mean) / data.std


def _mirror(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mirrored = rng.random(len(image)) < 0.5
    return np.where(mirrored[:, None, None, None], image[:, :, ::-1], image)


def _shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take a random crop of 32 by 32 pixels from each image, with reflected edges."""
    edge = (_MARGIN, _MARGIN)
    padded = np.pad(image, ((0, 0), edge, edge, (0, 0)), mode="reflect")
    top, left = rng.integers(0, 2 * _MARGIN + 1, (2, len(image), 1))
    places = np.arange(32)
    rows, columns = (top + places)[:, :, None], (left + places)[:, None, :]
    return padded[np.arange(len(image))[:, None, None], rows, columns]
