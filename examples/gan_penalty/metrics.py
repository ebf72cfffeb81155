"""How far generated points are from real ones, and how many centers they cover."""

from typing import Any

import numpy as np

from examples.gan_penalty.input_pipeline import PLACES, SPREAD, places


def sliced_wasserstein(one: np.ndarray, other: np.ndarray, *, directions: int = 64) -> float:
    """Return the mean, over directions, of the distance that points must move along each.

    Both are ``[N, 2]``. Along a line, the best way to move points keeps their order, so sorting is
    enough.
    """
    angle = np.pi * np.arange(directions) / directions
    lines = np.stack([np.cos(angle), np.sin(angle)])
    moved = np.sort(one @ lines, axis=0) - np.sort(other @ lines, axis=0)
    return float(np.abs(moved).mean())


def places_covered(points: np.ndarray) -> int:
    """Return how many centers have a quarter of their share of points within three spreads."""
    near = np.linalg.norm(points[:, None] - places(), axis=-1) < 3 * SPREAD
    return int((near.sum(axis=0) >= len(points) / PLACES / 4).sum())


def judge(points: Any, real: np.ndarray) -> dict[str, float]:
    """Return both numbers for generated points, which may be NaN."""
    points = np.asarray(points)
    with np.errstate(all="ignore"):
        return {
            "sliced_wasserstein": sliced_wasserstein(points, real),
            "places_covered": places_covered(points),
        }
