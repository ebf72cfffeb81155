"""GradientStabilizer in NumPy float64, written from Huang et al. (2025), algorithm 1."""

import math

import numpy as np


def gradient_stabilizer(
    norms: np.ndarray,
    *,
    b1: float = 0.6,
    b2: float = 0.999,
    eps: float = 0.0,
    bias_correction: bool = False,
) -> np.ndarray:
    """Return the norm of every leaf afterwards, for norms ``[steps, leaves]`` before."""
    m, v = [0.0] * norms.shape[1], [0.0] * norms.shape[1]
    out = np.zeros(norms.shape)
    for t, row in enumerate(norms.astype(np.float64), start=1):
        for i, r in enumerate(row):
            m[i] = b1 * m[i] + (1 - b1) * r
            v[i] = b2 * v[i] + (1 - b2) * r**2
            m_hat = m[i] / (1 - b1**t) if bias_correction else m[i]
            v_hat = v[i] / (1 - b2**t) if bias_correction else v[i]
            out[t - 1, i] = m_hat / (math.sqrt(v_hat) + eps) if r > 0 else 0.0
    return out


def bound(b1: float, b2: float) -> float:
    """Return the largest ratio of ``m`` to the root of ``v`` by lemma 3.6."""
    return (1 - b1) / math.sqrt(1 - b2) / math.sqrt(1 - b1**2 / b2)
