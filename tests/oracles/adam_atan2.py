"""Adam-atan2 in NumPy float64, from Everett et al. (2024), section 5."""

import numpy as np


def adam_atan2(
    gradients: np.ndarray, *, b1: float = 0.9, b2: float = 0.99, a: float = 1.27, b: float = 1.0
) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m, v = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        out.append(a * np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t))))
    return np.stack(out)
