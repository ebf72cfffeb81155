"""AdaGC in NumPy float64, written from Wang et al. (2025), algorithm 1.

The one change: a zero norm does not enter the mean.
"""

import numpy as np


def adagc(
    norms: np.ndarray,
    *,
    max_multiple: float = 1.04,
    decay: float = 0.99,
    max_norm: float = 1.0,
    warmup_steps: int = 100,
) -> np.ndarray:
    """Return the factors for leaf norms ``[steps, leaves]``."""
    gamma: list[float | None] = [None] * norms.shape[1]
    out = np.ones(norms.shape)
    for t, row in enumerate(norms.astype(np.float64), start=1):
        whole = np.sqrt(sum(r**2 for r in row))
        for i, r in enumerate(row):
            old = gamma[i]
            if t < warmup_steps:
                h = min(max_norm / whole, 1.0) if whole > 0 else 1.0
                new = h * r if old is None else min(old, h * r)
            else:
                h = 1.0 if old is None or r == 0 else min(max_multiple * old / r, 1.0)
                new = h * r if old is None else decay * old + (1 - decay) * h * r
            out[t - 1, i] = h
            if r > 0:
                gamma[i] = new
    return out
