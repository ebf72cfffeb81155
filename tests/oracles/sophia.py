"""Sophia in NumPy float64, from Liu et al. (2023), algorithm 3."""

import numpy as np


def sophia(
    gradients: np.ndarray,
    diagonals: np.ndarray,
    *,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-12,
    gamma: float = 0.01,
    k: int = 10,
) -> np.ndarray:
    """Return the direction of every step; of the diagonals ``[steps, ...]`` every k-th is used."""
    m, h = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        if (t - 1) % k == 0:  # t mod k = 1
            h = b2 * h + (1 - b2) * diagonals[t - 1]
        out.append(np.clip(m / np.maximum(gamma * h, eps), -1, 1))
    return np.stack(out)
