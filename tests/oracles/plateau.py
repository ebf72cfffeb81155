"""Reduce on plateau and back-off in NumPy float64, one number at a time."""

import math
from collections.abc import Iterable


def reduce_on_plateau(
    values: Iterable[float],
    *,
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: float = 0.0,
) -> list[float]:
    """Return the scale after every value, from PyTorch's ReduceLROnPlateau; NaN is left out."""
    scale, best, stale, waiting, window, out = 1.0, math.inf, 0, 0, [], []
    for value in values:
        if math.isfinite(value):
            window.append(value)
        if len(window) == accumulation_size:
            mean, window = sum(window) / accumulation_size, []
            better = math.isinf(best) or mean < best - rtol * abs(best) - atol
            best = mean if better else best
            stale = 0 if better or waiting else stale + 1
            waiting = max(waiting - 1, 0)
            if stale >= patience:
                scale, stale, waiting = max(scale * factor, min_scale), 0, cooldown
        out.append(scale)
    return out


def backoff(
    spikes: Iterable[bool], *, factor: float = 0.5, recovery: float = 100, min_scale: float = 0.01
) -> list[float]:
    """Return the factor of every step."""
    scale, out = 1.0, []
    for spike in spikes:
        if spike:
            scale = max(min_scale, scale * factor)
        else:
            scale = min(1.0, scale * factor ** (-1 / recovery))
        out.append(scale)
    return out


def limited(
    schedule: Iterable[float], *, min_value: float, max_value: float, max_growth: float
) -> list[float]:
    """Return the rate of every step, from the one before it."""
    out: list[float] = []
    for raw in schedule:
        value = min(max(min_value if math.isnan(raw) else raw, min_value), max_value)
        out.append(min(value, out[-1] * max_growth) if out else value)
    return out
