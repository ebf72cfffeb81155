"""AXLearn's skip and clip in NumPy float64, one scalar at a time."""

from collections.abc import Iterable, Iterator


def ema_multiple(
    norms: Iterable[float],
    *,
    max_multiple: float = 20.0,
    max_norm: float | None = None,
    decay: float = 0.99,
    start: float | None = 1.0,
) -> Iterator[float]:
    """Yield the scale of each step: 0 if it is skipped."""
    mean, count = start, 0
    for norm in norms:
        if mean is not None and norm >= max_multiple * mean:
            yield 0.0
            continue
        if norm > 0.0:
            corrected = decay * (1.0 - decay**count) / (1.0 - decay ** (count + 1))
            mean = norm if count == 0 else corrected * (mean or 0.0) + (1.0 - corrected) * norm
            count += 1
        yield 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
