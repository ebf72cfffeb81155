"""AdEMAMix and its schedules in NumPy float64, from Pagliardini et al. (2024)."""

from collections.abc import Callable

import numpy as np


def ademamix(
    gradients: np.ndarray,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: Callable[[int], float] = lambda _: 0.9999,
    alpha: Callable[[int], float] = lambda _: 6.0,
    eps: float = 1e-8,
) -> np.ndarray:
    """Return the direction of every step for gradients ``[steps, ...]``."""
    m1, m2, v = (np.zeros(gradients.shape[1:]) for _ in range(3))
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3(t) * m2 + (1 - b3(t)) * g
        v = b2 * v + (1 - b2) * g**2
        out.append((m1 / (1 - b1**t) + alpha(t) * m2) / (np.sqrt(v / (1 - b2**t)) + eps))
    return np.stack(out)


def b3_of_paper(step: float, start: float, end: float, steps: float) -> float:
    """Return the rate by the formula of section 3: as many logarithms as there stand."""
    s = min(step / steps, 1.0)
    log_start, log_end = np.log(start), np.log(end)
    return min(np.exp(log_start * log_end / ((1 - s) * log_end + s * log_start)), end)
