"""Muon in NumPy float64, from Jordan's reference and optax's momentum, one matrix at a time."""

import math

import numpy as np

A, B, C = 3.4445, -4.7750, 2.0315


def newton_schulz(m: np.ndarray, *, steps: int = 5, eps: float = 1e-8) -> np.ndarray:
    """Bring the singular values of a matrix to about 1, as ``zeropower_via_newtonschulz5``."""
    x = m.astype(np.float64)
    x = x / (math.sqrt(float((x * x).sum())) + eps)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.T if tall else x


def factor(rows: int, columns: int, scale: str | None) -> float:
    if scale is None:
        return 1.0
    if scale == "moonshot":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, columns / rows))


def muon(
    gradients: np.ndarray,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    eps: float = 1e-8,
    scale: str | None = None,
) -> np.ndarray:
    """Return the update of every step for gradients ``[steps, in, out]``."""
    mu = np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        mu = beta * mu + (1 - beta) * g
        m = mu / (1 - beta**t)
        if nesterov:
            m = beta * mu / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        out.append(
            newton_schulz(m, steps=ns_steps, eps=eps) * factor(g.shape[0], g.shape[1], scale)
        )
    return np.stack(out)
