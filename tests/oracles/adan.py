"""Adan in NumPy float64, from algorithm 1 of Xie et al. (2022), with b = 1 - beta of the paper."""

import numpy as np


def adan(
    gradients: np.ndarray,
    *,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight: float | None = None,
) -> np.ndarray:
    """Return the direction of every step; ``weight`` is that of the difference (b2)."""
    weight = b2 if weight is None else weight
    m, v, n = (np.zeros(gradients.shape[1:]) for _ in range(3))
    before = gradients[0].astype(np.float64)
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        d = g - before
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + weight * d) ** 2
        direction = m / (1 - b1**t) + weight * v / (1 - b2**t)
        out.append(direction / (np.sqrt(n / (1 - b3**t) + eps_root) + eps))
        before = g
    return np.stack(out)
