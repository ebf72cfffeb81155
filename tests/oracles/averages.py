"""First moments in NumPy float64: the running average, and momentum."""

import numpy as np


def ema(gradients: np.ndarray, *, decay: float, debias: bool = True) -> np.ndarray:
    """Return the running average at every step, as in Kingma and Ba (2014), section 3."""
    average = np.zeros(gradients.shape[1:])
    out = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        average = decay * average + (1 - decay) * g
        out.append(average / (1 - decay**t) if debias else average)
    return np.stack(out)


def trace(gradients: np.ndarray, *, decay: float, nesterov: bool = False) -> np.ndarray:
    """Return the direction of momentum at every step, as in Sutskever et al. (2013), section 2.

    There ``v' = mu v - e grad(theta + mu v)``. With the parameters written at the point of the
    gradient (Bengio et al. 2012, eq. 7) the step is ``mu v' - e grad``.
    """
    velocity = np.zeros(gradients.shape[1:])
    out = []
    for g in gradients.astype(np.float64):
        velocity = decay * velocity + g
        out.append(decay * velocity + g if nesterov else velocity)
    return np.stack(out)
