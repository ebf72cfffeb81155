"""Spikes that come back after every return, however small the steps: not the optimizer's fault."""

from typing import NamedTuple

import numpy as np

from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, all_hold, counted
from gradstable._src.doctor.rate import learning_rate_jump, learning_rate_too_high
from gradstable._src.doctor.taps import activations_grow, attention_logits_grow
from gradstable._src.telemetry.returns import Returns, returns_of
from gradstable._src.telemetry.run import Run

# Three returns are no accident, and two of them from steps this small no matter of the rate.
_RETURNS, _AGAIN, _SMALL = 3, 2, 0.5
# Most of them have to have helped: else an earlier state is no better, as with other data.
_HELPED = 0.5


class Again(NamedTuple):
    """How often a run spiked again although its steps were small.

    Attributes:
      times: how often.
      factor: the smallest factor on the steps at which it did.
    """

    times: int
    factor: float


def architecture_not_optimizer(run: Run) -> Diagnosis | None:
    """Find spikes that come back after returns, also with far smaller steps.

    Rule: 3 rollbacks or more, without those that were undone; after most of them the loss was at
    most half of what it was; and 2 or more of the later ones came when back-off had lowered the
    steps to half or less. Not if ``learning_rate_too_high`` or ``learning_rate_jump`` is found.
    """
    back = returns_of(run)
    if back is None or not back.judged:
        return None
    again = spiked_again(run, back)
    evidence = (
        Evidence("rollbacks that were not undone", back.times - back.undone, ">=", _RETURNS),
        Evidence("share after which the loss was at most half", back.better / back.judged, ">",
                 _HELPED),
        Evidence("of these, from steps of half the size or less", again.times, ">=", _AGAIN),
    )  # fmt: skip
    if not all_hold(evidence):
        return None
    if learning_rate_too_high(run) is not None or learning_rate_jump(run) is not None:
        return None
    grows = attention_logits_grow(run) or activations_grow(run)
    look = (
        "The growth named above is the first suspect. "
        if grows is not None
        else "Put gs.tap on the attention logits and after each block to see which of them grows "
        "before a spike. "
    )
    return Diagnosis(
        "architecture_not_optimizer",
        Severity.SERIOUS,
        f"The run spiked again {counted(again.times, 'time')} with steps at half of the learning "
        f"rate or less, down to {100 * again.factor:.0f} %: smaller steps only delay it. The cause "
        "is the architecture, not the optimizer.",
        evidence,
        f"{look}Look for what has no limit: attention logits without QK-norm, a residual stream "
        "without normalization, a recurrence, a division, float16. If each spike comes with the "
        "same kind of batch, it is that.",
    )


def spiked_again(run: Run, back: Returns) -> Again:
    """Return how often a rollback, after the first, came from steps that were already small."""
    begins = np.flatnonzero(back.held & ~np.append(False, back.held[:-1]))
    # The factor falls with every rejection in a row: that of the last step that was applied counts.
    applied = np.flatnonzero(~run.rejected & ~back.held)
    last = np.searchsorted(applied, begins[1:]) - 1
    factors = run.lr_factor[applied[last[last >= 0]]]
    small = factors[factors <= _SMALL]
    return Again(len(small), float(small.min()) if small.size else 1.0)
