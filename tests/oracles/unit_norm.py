"""AGC in NumPy float64, unit by unit, written from Brock et al. (2021), equation 3."""

import math

import numpy as np


def unit_norm(
    gradient: np.ndarray,
    weights: np.ndarray,
    *,
    kept: tuple[int, ...],
    clipping: float = 0.01,
    eps: float = 1e-3,
) -> np.ndarray:
    """Return the clipped gradient of one leaf whose units are told apart by the kept axes."""
    out = gradient.astype(np.float64)
    for place in np.ndindex(*(gradient.shape[axis] for axis in kept)):
        unit: list[slice | int] = [slice(None)] * gradient.ndim
        for axis, index in zip(kept, place, strict=True):
            unit[axis] = index
        part = tuple(unit)
        of_gradient = math.sqrt(sum(float(g) ** 2 for g in out[part].flat))
        of_weights = math.sqrt(sum(float(w) ** 2 for w in weights[part].flat))
        limit = clipping * max(of_weights, eps)
        if of_gradient > limit:
            out[part] *= limit / of_gradient
    return out
