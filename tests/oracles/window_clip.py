"""Levanter's clip of update norms in NumPy float64, with the history as a list."""

from collections.abc import Iterable, Iterator

import numpy as np


def window_clip(
    norms: Iterable[float], *, window: int = 128, clip_at: float = 3.0
) -> Iterator[float]:
    """Yield the scale of each step."""
    history: list[float] = []
    for norm in norms:
        scale = 1.0
        if len(history) >= max(2, window // 2):
            limit = float(np.mean(history)) + clip_at * max(float(np.std(history)), 1e-6)
            if norm > limit:
                scale = limit / max(norm, 1e-6)
        yield scale
        history = [*history, norm][-window:]
