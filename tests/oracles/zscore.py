"""ZClip in NumPy float64, one scalar at a time, written from the paper and its code."""

import math
from collections.abc import Iterable, Iterator


def zscore(
    norms: Iterable[float],
    *,
    clip_at: float = 2.5,
    decay: float = 0.97,
    max_norm: float | None = 1.0,
    mode: str = "adaptive_scaling",
    clip_factor: float = 1.0,
    skip_update_on_spike: bool = False,
    warmup_steps: int = 25,
    eps: float = 1e-6,
) -> Iterator[float]:
    """Yield the scale of each step."""
    ceiling = math.inf if max_norm is None else max_norm
    first: list[float] = []
    mean = var = math.nan
    for norm in norms:
        if norm == 0.0:
            yield 1.0
            continue
        if len(first) < warmup_steps:
            first.append(norm)
            mean = sum(first) / len(first)
            var = sum((x - mean) ** 2 for x in first) / len(first)
            yield min(1.0, ceiling / norm)
            continue
        std = math.sqrt(var)
        z = (norm - mean) / (std + eps)
        clipped: float | None = None
        if mode == "percentile":
            if norm > mean + clip_at * std:
                clipped = mean + clip_at * std
        elif z > clip_at:
            if mode == "mean":
                clipped = mean
            else:
                eta = z / clip_at
                clipped = clip_factor * (mean + clip_at * std / eta)
        learns = norm if clipped is None else clipped
        yield min(1.0, min(learns, ceiling) / norm)
        if clipped is not None and skip_update_on_spike:
            continue
        mean = decay * mean + (1.0 - decay) * learns
        var = decay * var + (1.0 - decay) * (learns - mean) ** 2
