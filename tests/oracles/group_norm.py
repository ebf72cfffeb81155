"""AGGC in NumPy float64, written from Li et al. (2026) and the options of its code."""

from collections.abc import Sequence

import numpy as np


def group_norm(
    norms: np.ndarray,
    names: Sequence[str],
    *,
    high: float = 0.6,
    low: float = 0.95,
    late_high: float = 0.7,
    late_low: float = 0.98,
    total_steps: int | None = None,
    switch: float = 0.4,
    transition: float = 0.3,
    decay: float = 0.95,
    min_norm: float = 0.01,
    raise_small: bool = False,
    min_scale: float = 0.9,
    max_scale: float = 1.1,
) -> np.ndarray:
    """Return the factors for leaf norms ``[steps, leaves]``; leaves of one name are a group."""
    mean = dict.fromkeys(names, 0.0)
    out = np.ones(norms.shape)
    for step, row in enumerate(norms.astype(np.float64)):
        progress = 0.0 if total_steps is None else step / total_steps
        if progress <= switch:
            alpha = 0.0
        elif progress >= switch + transition:
            alpha = 1.0
        else:
            alpha = (progress - switch) / transition
        a_hi = high * (1 - alpha) + late_high * alpha
        a_lo = low * (1 - alpha) + late_low * alpha
        for name in mean:
            members = [i for i, other in enumerate(names) if other == name]
            n = float(np.sqrt(sum(row[i] ** 2 for i in members)))
            upper, lower, scale = a_hi * mean[name], max(min_norm, a_lo * mean[name]), 1.0
            if upper > 0 and n > upper:
                scale = max(upper / n, min_scale)
            elif raise_small and 0 < n < lower:
                scale = min(lower / n, max_scale)
            out[step, members] = scale
            mean[name] = decay * mean[name] + (1 - decay) * scale * n
    return out
