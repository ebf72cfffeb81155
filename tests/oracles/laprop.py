"""LaProp in NumPy float64, from Ziyin et al. (2020), algorithm 1, for a constant rate of 1."""

import numpy as np


def laprop(
    gradients: np.ndarray, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-15
) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m, n = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        n = b2 * n + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g / (np.sqrt(n / (1 - b2**t)) + eps)
        out.append(m / (1 - b1**t))
    return np.stack(out)
