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
    reject_recurring: bool = False,
) -> Iterator[float]:
    """Yield the scale of each step: 1 untouched, between 0 and 1 clipped, 0 rejected."""
    center, spread, count = 0.0, 0.3, 0
    appeal = Appeal()
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
            appeal.hear(x, rejected=False)
            yield 1.0
            continue
        excess = x - center
        sigma = SIGMA_PER_MAD * min(spread, max_spread)
        rejected = excess > max(reject_at * sigma, math.log(reject_above))
        medians = appeal.hear(x, rejected=rejected)
        if rejected and medians and not reject_recurring:
            yield math.exp(min(math.log(medians), clip_at * sigma) - excess)
        elif rejected:
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


class Appeal:
    """Lists instead of sums that fade: every meeting with its age."""

    def __init__(self) -> None:
        self.time, self.run, self.passed = 0, 0, 0
        self.meetings: list[tuple[int, int]] = []  # (time, level)
        self.admissions: list[int] = []
        self.last = math.nan

    def hear(self, x: float, *, rejected: bool) -> float:
        """Return at how many medians a norm is let in, 0 if not."""
        level = math.floor(x / 0.5)
        near = [time for time, other in self.meetings if abs(other - level) <= 1]
        again = self.run if abs(x - self.last) < 1.0 else 0
        known = self._sum(near) - (self.run > 0) >= 2.0
        long = again + 1 > 5 + self.passed / 4
        admit = rejected and (known or long)
        medians = min(1 + self._sum(self.admissions) / 32, 3.0)
        held = rejected and not admit
        if not held or not self.run:
            self.meetings += [(self.time, level)] * (3 if admit and long else 1)
        if admit:
            self.admissions.append(self.time)
        self.time += 1
        self.passed += not held
        self.run = again + 1 if held else 0
        if rejected:
            self.last = x
        return medians if admit else 0.0

    def _sum(self, times: list[int]) -> float:
        return sum((1 - 1e-3) ** (self.time - time - 1) for time in times)
