"""Ten classes of rendered shapes, 32 by 32 pixels in color, as a stand-in for CIFAR-10.

It lets the example run immediately, offline. Shapes with random position, size, rotation, color,
and texture lie on a textured background, with noise: harder than digits, and far easier than
photographs. Results on it say nothing about CIFAR-10.
"""

import numpy as np

from examples.cifar10_mobilenet.cifar_binary import Images

CLASSES = (
    "disc", "ring", "square", "diamond", "triangle", "plus", "cross", "star", "crescent", "bars",
)  # fmt: skip
_CHUNK = 1000


def shapes(count: int, *, seed: int) -> Images:
    """Return ``count`` rendered images; classes are drawn at random."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(CLASSES), count).astype(np.int32)
    parts = [_render(label[i : i + _CHUNK], rng) for i in range(0, count, _CHUNK)]
    return Images(np.concatenate(parts), label)


def _render(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = len(label)
    inside = _mask(label, *_coordinates(count, rng))[..., None]
    front, back = _colors(count, rng)
    front = front + _texture(count, rng)
    back = back + _texture(count, rng)
    image = np.where(inside, front, back) + rng.normal(0.0, 0.08, (count, 32, 32, 3))
    return np.round(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


def _coordinates(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return ``x`` and ``y`` of every pixel in the shape's coordinates, which span -1 to 1."""
    center = rng.uniform(-0.3, 0.3, (2, count, 1, 1))
    size = rng.uniform(0.4, 0.7, (count, 1, 1))
    turn = rng.uniform(-0.3, 0.3, (count, 1, 1))  # below 45 degrees, so a square is not a diamond
    axis = np.linspace(-1.0, 1.0, 32)
    x = (axis[None, None, :] - center[0]) / size
    y = (axis[None, :, None] - center[1]) / size
    return np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x


def _mask(label: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which pixels are inside the shape of each image."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    across, along = np.abs(x), np.abs(y)
    box = np.maximum(across, along)
    diagonal = np.minimum(np.abs(x - y), np.abs(x + y))
    masks = (
        radius < 1,
        (radius < 1) & (radius > 0.55),
        box < 0.85,
        across + along < 1.1,
        (y > across * 1.8 - 1) & (y < 0.8),
        (np.minimum(across, along) < 0.28) & (box < 1),
        (diagonal < 0.38) & (radius < 1.1),
        radius < 0.65 + 0.35 * np.cos(5 * angle),
        (radius < 1) & (np.hypot(x - 0.55, y) > 0.8),
        (box < 0.95) & (np.cos(1.5 * np.pi * y / 0.95) < 0.1),
    )
    return np.select([label[:, None, None] == i for i in range(len(masks))], masks)


def _colors(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the colors of the shape and the background, at least 0.25 apart in one channel."""
    back = rng.uniform(0.15, 0.85, (count, 3))
    front = rng.uniform(0.15, 0.85, (count, 3))
    channel = rng.integers(0, 3, count)
    rows = np.arange(count)
    apart = rng.uniform(0.25, 0.5, count)
    up = back[rows, channel] < 0.5
    front[rows, channel] = back[rows, channel] + np.where(up, apart, -apart)
    return front[:, None, None, :], back[:, None, None, :]


def _texture(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return gentle waves of random direction, length, and color."""
    wave = rng.uniform(-8.0, 8.0, (2, count, 1, 1))
    phase = rng.uniform(0.0, 2 * np.pi, (count, 1, 1))
    axis = np.linspace(-1.0, 1.0, 32)
    waves = np.sin(wave[0] * axis[None, None, :] + wave[1] * axis[None, :, None] + phase)
    return waves[..., None] * rng.uniform(0.0, 0.12, (count, 1, 1, 3))
