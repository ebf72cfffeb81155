"""Methods that divide by a root of squares, in NumPy float64, from their papers."""

import numpy as np


def rmsprop(
    gradients: np.ndarray,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    centered: bool = False,
) -> np.ndarray:
    """Hinton (2012), lecture 6e; centered as in Graves (2013), equations 38 to 41.

    Corrected, the mean square alone is: one gradient has no variance.
    """
    n = np.full(gradients.shape[1:], initial_scale)
    mean = np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        n = decay * n + (1 - decay) * g**2
        mean = decay * mean + (1 - decay) * g
        correction = 1 - decay**t if bias_correction else 1.0
        square = n / correction - (mean**2 if centered else 0.0)
        out.append(g / np.sqrt(square + eps) if eps_in_sqrt else g / (np.sqrt(square) + eps))
    return np.stack(out)


def adagrad(
    gradients: np.ndarray, *, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> np.ndarray:
    """Duchi et al. (2011), the diagonal form; eps inside the root."""
    total = np.full(gradients.shape[1:], initial_accumulator_value)
    out = []
    for g in gradients.astype(np.float64):
        total = total + g**2
        out.append(g / np.sqrt(total + eps))
    return np.stack(out)


def adadelta(gradients: np.ndarray, *, rho: float = 0.9, eps: float = 1e-6) -> np.ndarray:
    """Zeiler (2012), algorithm 1."""
    squared_gradient = np.zeros(gradients.shape[1:])
    squared_step = np.zeros(gradients.shape[1:])
    out = []
    for g in gradients.astype(np.float64):
        squared_gradient = rho * squared_gradient + (1 - rho) * g**2
        step = np.sqrt(squared_step + eps) / np.sqrt(squared_gradient + eps) * g
        squared_step = rho * squared_step + (1 - rho) * step**2
        out.append(step)
    return np.stack(out)
