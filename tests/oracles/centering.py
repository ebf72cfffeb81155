"""Mean, deviation and what is made of them, in float64 and one number at a time."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.oracles.compressors import CURVES

_ROUNDING = 2.0**-20


def mean_and_std(unit: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the population standard deviation of the entries of a unit.

    One or two entries have no mean of their own; a spread below rounding is none.
    """
    n = len(unit)
    mean = math.fsum(unit) / n if n > 2 else 0.0
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in unit) / n)
    return mean, std if std > _ROUNDING * abs(mean) else 0.0


def centralize_row(unit: Sequence[float]) -> list[float]:
    mean = math.fsum(unit) / len(unit)
    return [x - mean for x in unit]


def stabilize_row(unit: Sequence[float], adjust: str, eps: float = 1e-8) -> list[float]:
    mean, std = mean_and_std(unit)
    out: list[float] = []
    for x in unit:
        if not all(map(math.isfinite, unit)) or std == 0.0:
            out.append(0.0)
        elif adjust == "none":
            out.append(x - mean)
        elif adjust == "snr":
            out.append((x - mean) * std**2 / (std**2 + mean**2))
        elif adjust == "norm":
            out.append((x - mean) / (std + eps))
        else:
            out.append(CURVES[adjust]((x - mean) / (std + eps)))
    return out


def normalize_row(unit: Sequence[float], scale: float = 1.0, eps: float = 1e-6) -> list[float]:
    norm = math.sqrt(math.fsum(x * x for x in unit))
    return [scale * x / (norm + eps) if norm else 0.0 for x in unit]


def by_output(kernel: np.ndarray, row: Callable[[list[float]], list[float]]) -> np.ndarray:
    """Apply a function of one unit to every output of a kernel ``(..., in, out)``."""
    out = np.zeros(kernel.shape)
    for j in range(kernel.shape[-1]):
        unit = [float(x) for x in kernel[..., j].ravel()]
        out[..., j] = np.reshape(row(unit), kernel.shape[:-1])
    return out
