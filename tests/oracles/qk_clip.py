"""QK-Clip in NumPy float64, written from Kimi K2 (2025), algorithm 1, one head after the other."""

import numpy as np


def qk_clip(
    query: np.ndarray,
    key: np.ndarray,
    max_logits: np.ndarray,
    *,
    max_logit: float = 100.0,
    alpha: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernels ``(in, heads, head_dim)`` after the clip; key heads may be shared."""
    query, key = query.astype(np.float64), key.astype(np.float64)
    shared = query.shape[1] // key.shape[1]
    for group in range(key.shape[1]):
        heads = range(group * shared, (group + 1) * shared)
        largest = max(float(max_logits[h]) for h in heads)
        gamma = min(1.0, max_logit / largest) if largest > 0 else 1.0
        for h in heads:
            query[:, h] *= gamma**alpha
        key[:, group] *= gamma ** (1 - alpha)
    return query, key
