"""ADOPT in NumPy float64, from Taniguchi et al. (2024), algorithm 2 (clipped)."""

import numpy as np


def adopt(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    use_clipping: bool = True,
) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m = np.zeros(gradients.shape[1:])
    v = gradients[0].astype(np.float64) ** 2
    out = [m]
    for t, g in enumerate(gradients[1:].astype(np.float64), start=1):
        c = g / np.maximum(np.sqrt(v), eps)
        if use_clipping:
            c = np.clip(c, -(t**0.25), t**0.25)
        m = b1 * m + (1 - b1) * c
        v = b2 * v + (1 - b2) * g**2
        out.append(m)
    return np.stack(out)
