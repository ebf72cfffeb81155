"""S3 in NumPy float64, from Peng et al. (2025), with the power itself as state."""

import numpy as np


def s3(gradients: np.ndarray, *, b1: float = 0.95, p: float = 3.0) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m, s = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for g in gradients.astype(np.float64):
        m = b1 * m + (1 - b1) * g
        s = b1 * s + (1 - b1) * np.abs(g) ** p
        n = b1 * m + (1 - b1) * g
        b = (b1 * s + (1 - b1) * np.abs(g) ** p) ** (1 / p)
        out.append(n / b)
    return np.stack(out)
