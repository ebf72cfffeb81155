"""The log-MAD rule in NumPy float64, one scalar at a time, written from its definition."""

import math
from collections.abc import Iterable, Iterator

SIGMA_PER_MAD = 1.4826


def log_mad(
    norms: Iterable[float],
    *,
    clip_at: float = 4.0,
    reject_at: float = 6.0,
    reject_above: float = 5.0,
    rate: float = 0.03,
    min_spread: float = 0.1,
    max_spread: float = 0.3,
) -> Iterator[float]:
    """Yield the scale of each step: 1 untouched, between 0 and 1 clipped, 0 rejected."""
    center, spread, count = 0.0, 0.3, 0
    for norm in norms:
        if not math.isfinite(norm) or norm > 2.0**60:
            yield 0.0
            continue
        if norm == 0.0:
            yield 1.0
            continue
        x = math.log(norm)
        if count == 0:
            center, count = x, 1
            yield 1.0
            continue
        excess = x - center
        sigma = SIGMA_PER_MAD * min(spread, max_spread)
        if excess > max(reject_at * sigma, math.log(reject_above)):
            yield 0.0
        elif excess > clip_at * sigma:
            yield math.exp(clip_at * sigma - excess)
        else:
            yield 1.0
        settling = count < 10
        count += 1
        if settling and excess < -clip_at * sigma:
            center, spread = x, 0.3
            continue
        gain = max(rate, 1.0 / count)
        center += 1.5 * gain * max(-spread, min(spread, excess))
        spread *= math.exp(gain if abs(excess) > spread else -gain)
        spread = max(min_spread, min(10.0, spread))
