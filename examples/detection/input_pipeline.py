"""One scikit-learn digit somewhere on a noisy canvas, with its class and its box."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CANVAS = 32
_TEST = 397  # of the 1797 digits; the rest are for training
_HEIGHTS = (12, 24)  # minimum and maximum height of a digit, in pixels
_STRETCH = 1.25  # maximum factor by which it becomes wider or narrower


class Batch(NamedTuple):
    """Canvases with their contents."""

    image: np.ndarray  # float32 [n, 32, 32, 1]
    label: np.ndarray  # int32 [n]
    box: np.ndarray  # float32 [n, 4]: cx, cy, w, h as fractions of the canvas


class Digits(NamedTuple):
    """Digits cropped to their ink, so their shapes differ, and their classes."""

    crops: list[np.ndarray]  # float64 [h, w], 0 to 1
    label: np.ndarray  # int32 [n]


def load(*, seed: int) -> tuple[Digits, Digits]:
    """Return the digits for training and those for testing; no digit is in both."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    crops = [_cut(pixels[i].reshape(8, 8) / 16.0) for i in order]
    label = labels[order].astype(np.int32)
    train = Digits(crops[_TEST:], label[_TEST:])
    return train, Digits(crops[:_TEST], label[:_TEST])


def batches(digits: Digits, *, size: int, seed: int) -> Iterator[Batch]:
    """Yield endless new scenes: the same digit never appears twice in the same place."""
    rng = np.random.default_rng(seed)
    while True:
        yield scenes(digits, rng.integers(0, len(digits.label), size), rng)


def test_set(digits: Digits, *, copies: int, seed: int) -> Batch:
    """Return every digit in ``copies`` scenes."""
    which = np.tile(np.arange(len(digits.label)), copies)
    return scenes(digits, which, np.random.default_rng(seed))


def scenes(digits: Digits, which: np.ndarray, rng: np.random.Generator) -> Batch:
    """Put each of these digits on its own canvas."""
    count = len(which)
    image = _background(count, rng)
    sizes = _sizes([digits.crops[i].shape for i in which], rng)
    corners = rng.integers(0, CANVAS - sizes + 1)
    ink = rng.uniform(0.6, 1.0, count)
    for i in range(count):
        (height, width), (top, left) = sizes[i], corners[i]
        crop = ink[i] * _resize(digits.crops[which[i]], height, width)
        place = image[i, top : top + height, left : left + width]
        np.maximum(place, crop, out=place)
    box = np.concatenate([corners + sizes / 2, sizes], axis=1)[:, [1, 0, 3, 2]] / CANVAS
    noisy = image + rng.normal(0.0, 0.1, image.shape)
    label = digits.label[which]
    return Batch(noisy.astype(np.float32)[..., None], label, box.astype(np.float32))


def _sizes(shapes: list[tuple[int, ...]], rng: np.random.Generator) -> np.ndarray:
    """Draw the height and the width, in pixels, of digits that were cropped to these shapes."""
    aspect = np.array([width / height for height, width in shapes])
    height = rng.integers(_HEIGHTS[0], _HEIGHTS[1] + 1, len(shapes))
    stretch = rng.uniform(1 / _STRETCH, _STRETCH, len(shapes))
    width = np.clip(np.round(height * aspect * stretch), 3, CANVAS - 2)
    return np.stack([height, width.astype(np.int64)], axis=1)


def _background(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return canvases with a brightness gradient and a few short distractor strokes."""
    axis = np.linspace(-0.5, 0.5, CANVAS)
    slope = rng.uniform(-0.2, 0.2, (2, count, 1, 1))
    image = 0.15 + slope[0] * axis[None, None, :] + slope[1] * axis[None, :, None]
    for i in range(count):
        for _ in range(3):
            top, left = rng.integers(0, CANVAS, 2)
            high, wide = rng.permutation(np.array([rng.integers(3, 7), 1]))
            image[i, top : top + high, left : left + wide] = rng.uniform(0.3, 0.8)
    return image


def _cut(image: np.ndarray) -> np.ndarray:
    """Crop an image to its ink, so that the box of a digit is tight."""
    rows, columns = np.flatnonzero(image.max(axis=1) > 0.2), np.flatnonzero(image.max(axis=0) > 0.2)
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretch an image to a size, with linear interpolation."""
    return _weights(image.shape[0], height) @ image @ _weights(image.shape[1], width).T


def _weights(old: int, new: int) -> np.ndarray:
    place = np.linspace(0.0, old - 1.0, new)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(old)))
