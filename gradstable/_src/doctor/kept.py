"""A NaN that something in front of the guard keeps, which breaks every later gradient."""

import numpy as np

from gradstable._src.core.reasons import Reason
from gradstable._src.doctor.signals import trailing
from gradstable._src.telemetry.run import Run

# More rejections in a row than bad batches explain.
_NEVER_SOUND = 20
# The bad batch itself, and an infinity that becomes a NaN one step later.
_EXCEPTIONS = 2


def kept_nan(run: Run) -> int:
    """Return how many steps at the end look like a NaN that is kept; 0 if they do not.

    Rule: the last 20 steps or more were all rejected because the gradient was not finite. With at
    most two exceptions, the norm is NaN and in the same leaf (a gradient that overflows in every
    step is infinite), or finite if it was recorded in front of what keeps the NaN. The loss, if
    known, is finite with at most two exceptions. ``optax.MultiSteps`` around a guard looks like
    that after one NaN.
    """
    number = trailing(run.rejected & (run.reason == Reason.NONFINITE))
    if number < _NEVER_SOUND:
        return 0
    norms, leaves = run.grad_norm[-number:], run.worst_leaf[-number:]
    broken = np.isnan(norms) & (leaves == leaves[-1])
    loss = run.loss[-number:] if run.has_loss else np.zeros(number)
    same = max(np.count_nonzero(broken), np.count_nonzero(np.isfinite(norms)))
    sound = np.count_nonzero(np.isfinite(loss))
    return number if min(same, sound) >= number - _EXCEPTIONS else 0
