"""The cautious mask in NumPy float64, from Liang et al. (2024), algorithm 1; one leaf."""

import numpy as np


def cautious(direction: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return a direction without what points against the gradient."""
    agrees = [u * g > 0 for u, g in zip(direction.flat, gradient.flat, strict=True)]
    share = max(sum(agrees) / max(len(agrees), 1), 1e-3)
    kept = [u / share if keep else 0.0 for u, keep in zip(direction.flat, agrees, strict=True)]
    return np.reshape(np.asarray(kept), direction.shape)
