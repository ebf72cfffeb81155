"""StableAdamW in NumPy float64, from Wortsman et al. (2023), algorithm 2; one leaf."""

import numpy as np


def clipped_adam(
    gradients: np.ndarray,
    params: np.ndarray | None = None,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return direction and RMS of every step; the parameters do not move."""
    m, v = np.zeros(gradients.shape[1:]), np.zeros(gradients.shape[1:])
    params = np.zeros(gradients.shape[1:]) if params is None else params
    out, seen = [], []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        b1_hat = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        b2_hat = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        m = b1_hat * m + (1 - b1_hat) * g
        v = b2_hat * v + (1 - b2_hat) * g**2
        rms = np.sqrt(np.mean(g**2 / np.maximum(v, eps**2)))
        u = m / (np.sqrt(v) + eps) + weight_decay * params
        out.append(u / max(1.0, rms))
        seen.append(rms)
    return np.stack(out), np.stack(seen)
