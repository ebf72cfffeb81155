"""Clippy in NumPy float64, entry by entry, written from Tang et al. (2023), algorithm 1."""

import numpy as np


def clippy(
    update: np.ndarray, param: np.ndarray, *, relative: float = 0.1, absolute: float = 1e-7
) -> np.ndarray:
    """Return the update of one leaf, scaled until no entry changes too much."""
    scale = 1.0
    for u, theta in zip(update.flat, param.flat, strict=True):
        if u != 0:
            scale = min(scale, (relative * abs(float(theta)) + absolute) / abs(float(u)))
    return update.astype(np.float64) * scale
