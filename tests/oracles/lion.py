"""Lion in NumPy float64, from Chen et al. (2023), algorithm 2."""

import numpy as np


def lion(gradients: np.ndarray, *, b1: float = 0.9, b2: float = 0.99) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m = np.zeros(gradients.shape[1:])
    out = []
    for g in gradients.astype(np.float64):
        out.append(np.sign(b1 * m + (1 - b1) * g))
        m = b2 * m + (1 - b2) * g
    return np.stack(out)
