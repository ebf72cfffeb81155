"""Adam in NumPy float64, written from Kingma and Ba (2014), algorithm 1."""

import numpy as np


def adam(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m = np.zeros(gradients.shape[1:])
    v = np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        out.append(m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
    return np.stack(out)
