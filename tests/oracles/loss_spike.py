"""The rule on the loss in NumPy float64, one scalar at a time, written from its definition."""

import math
import statistics
from collections.abc import Iterable, Iterator


def loss_spike(
    losses: Iterable[float],
    *,
    reject_at: float = 6.0,
    rate: float = 0.03,
    min_spread: float = 0.01,
    warmup_steps: int = 20,
) -> Iterator[float]:
    """Yield 1 for each accepted step and 0 for each rejected one."""
    first: list[float] = []
    center = spread = 0.0
    count = 0
    for loss in losses:
        if not math.isfinite(loss) or abs(loss) > 2.0**60:
            yield 0.0
            continue
        excess = loss - center
        judged = count >= warmup_steps and spread > 0.0
        yield 0.0 if judged and excess > reject_at * 1.4826 * spread else 1.0
        count += 1
        if count <= warmup_steps:
            first.append(loss)
            center = statistics.median(first)
            spread = statistics.median(abs(x - center) for x in first)
        else:
            gain = max(rate, 1.0 / count)
            spread = spread or abs(excess)
            center += 1.5 * gain * max(-spread, min(spread, excess))
            if loss != 0.0:
                spread *= math.exp(gain if abs(excess) > spread else -gain)
        spread = max(spread, min_spread * abs(center))
