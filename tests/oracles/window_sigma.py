"""OLMo's step skipping in NumPy float64, with the histories as lists, newest last."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def window_sigma(
    norms: Iterable[float],
    losses: Sequence[float] | None = None,
    *,
    window: int = 128,
    reject_at: float = 6.0,
) -> Iterator[float]:
    """Yield 1 for each accepted step and 0 for each skipped one."""
    past_norms: list[float] = []
    past_losses: list[float] = []
    for step, norm in enumerate(norms):
        accept = _usual(norm, past_norms, window, reject_at)
        past_norms = [*past_norms, norm][-window:]
        if losses is not None:
            loss = losses[step]
            accept = accept and np.isfinite(loss) and _usual(loss, past_losses, window, reject_at)
            if np.isfinite(loss):
                past_losses = [*past_losses, loss][-window:]
        yield float(accept)


def _usual(newest: float, past: list[float], window: int, reject_at: float) -> bool:
    if len(past) + 1 < max(2, window // 2) or len(past) < 2:
        return True
    return bool(newest - np.mean(past) <= reject_at * np.std(past, ddof=1))
