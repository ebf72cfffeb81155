"""AutoClip in NumPy float64, written from the paper: Algorithm 1, with a bounded history."""

from collections.abc import Iterable, Iterator

import numpy as np


def percentile(
    norms: Iterable[float], *, percentile: float = 10.0, window: int = 1000
) -> Iterator[float]:
    """Yield the scale of each step; zero norms are left out of the history."""
    history: list[float] = []
    for norm in norms:
        if norm > 0.0:
            history.append(norm)
        history = history[-window:]
        limit = np.percentile(history, percentile) if history else np.inf
        yield float(limit / norm) if norm > limit else 1.0
