"""Caps and trust ratios in NumPy float64, one leaf (or unit) at a time."""

import math
from collections.abc import Callable

import numpy as np


def norm(x: np.ndarray) -> float:
    return math.sqrt(sum(float(v) ** 2 for v in x.astype(np.float64).ravel()))


def cap_update_rms(u: np.ndarray, max_rms: float) -> np.ndarray:
    """Adafactor's section 6: u / max(1, RMS(u) / d)."""
    rms = norm(u) / math.sqrt(u.size)
    return u.astype(np.float64) / max(1.0, rms / max_rms)


def cap_trust(u: np.ndarray, p: np.ndarray, max_ratio: float, floor: float) -> np.ndarray:
    limit = max_ratio * max(norm(p), floor * math.sqrt(p.size))
    return u.astype(np.float64) * min(1.0, limit / norm(u)) if norm(u) else u.astype(np.float64)


def trust_ratio(
    u: np.ndarray,
    p: np.ndarray,
    *,
    min_norm: float = 0.0,
    trust_coefficient: float = 1.0,
    eps: float = 0.0,
    trust_clip: bool = False,
) -> np.ndarray:
    """LARS and LAMB: the ratio of norms, 1 where either is 0."""
    of_u, of_p = max(norm(u), min_norm), max(norm(p), min_norm)
    ratio = 1.0 if of_u == 0 or of_p == 0 else trust_coefficient * of_p / (of_u + eps)
    return u.astype(np.float64) * (min(ratio, 1.0) if trust_clip else ratio)


def by_layer(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Apply one of the above to each layer of stacked leaves."""
    return np.stack([function(*layers) for layers in zip(*arrays, strict=True)])
