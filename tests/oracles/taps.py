"""The statistics of a tap in NumPy float64, from all entries that it has seen."""

import numpy as np


def statistics(*calls: np.ndarray, saturated_at: float) -> dict[str, float]:
    """Return the numbers of one direction, of all calls together."""
    every = np.concatenate([np.asarray(call, np.float64).ravel() for call in calls])
    finite = every[np.isfinite(every)]
    mean_square = np.mean(finite**2)
    scaled = finite / np.sqrt(mean_square)  # fourth powers may not fit into float64 either
    return {
        "calls": len(calls),
        "rms": float(np.sqrt(mean_square)),
        "max_abs": float(np.max(np.abs(finite))),
        "kurtosis": float(np.mean(scaled**4)),
        "zeros": float(np.mean(finite == 0)),
        "saturated": float(np.mean(np.abs(finite) >= saturated_at)),
        "not_finite": float(np.mean(~np.isfinite(every))),
    }


def max_logits(logits: np.ndarray) -> np.ndarray:
    """Return the largest finite logit of each head of ``[..., heads, q, k]``, at least 0."""
    heads = np.moveaxis(np.asarray(logits, np.float64), -3, 0)
    flat = heads.reshape(len(heads), -1)
    return np.array([max([0.0, *row[np.isfinite(row)]]) for row in flat])
