"""Trouble that comes back: a steady share of steps that are rejected or clipped, and bursts."""

from gradstable._src.core.reasons import Reason
from gradstable._src.doctor.data import broken_loss, gradient_overflows
from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity
from gradstable._src.doctor.level import level_shift
from gradstable._src.doctor.rate import early, learning_rate_too_high
from gradstable._src.telemetry.patterns import (
    LEAST_BURST,
    LEAST_TIMES,
    Pattern,
    Shape,
    patterns_of,
    sentence_of,
)
from gradstable._src.telemetry.run import Run


def recurring_gradients(run: Run) -> Diagnosis | None:
    """Find a share of steps that is rejected, or clipped to the usual size, again and again.

    Rule: for one cause, 5 separate times or more within 500 steps, which is 1 %. Times are separate
    if 3 untouched steps or more are between them; one with 10 touched steps in a row is a
    ``burst``. Gradients that are not finite are left to ``broken_loss`` and ``gradient_overflows``,
    if either finds them.
    """
    one = _found(run, Shape.STEADY)
    if one is None:
        return None
    starved = not one.let_in
    such = f"Look at the batches of these steps, such as {run.step[one.rows[-1]]:,}"
    if one.far:
        advice = (
            f"{such}. If they are a task or a kind of data, balance the losses: divide the loss of "
            "each by its usual size. If they are faults, repair the reader, or leave them out. "
        ) + (
            "gs.rules.log_mad(), the default, lets them in at the usual size."
            if starved
            else "gs.rules.log_mad(reject_recurring=True) rejects them."
        )
    else:
        advice = f"{such}, and at the rule that rejects them."
    return Diagnosis(
        "recurring_gradients",
        Severity.SERIOUS if starved else Severity.MILD,
        f"{sentence_of(one, run.leaves)}: {one.meaning}.",
        (Evidence("separate times that it happened", one.times, ">=", LEAST_TIMES),),
        advice,
    )


def burst(run: Run) -> Diagnosis | None:
    """Find several bad steps in a row after which the run continues.

    Rule: 4 steps or more are rejected, or clipped because their norm keeps coming back, with at
    most 3 untouched ones between two of them, and they are not part of ``recurring_gradients``. Not
    counted are bursts in the start (5 % of 20 steps or more, but at least 10), one that lasts to
    the end (``locked_in``), what ``broken_loss`` or ``gradient_overflows`` finds, and runs with a
    ``level_shift`` or ``learning_rate_too_high``, where they are an effect.
    """
    one = _found(run, Shape.BURST)
    if one is None or one.rows[-1] < early(run):
        return None
    ends = one.times == 1 and one.rows[-1] == len(run.step) - 1
    if ends or level_shift(run) is not None or learning_rate_too_high(run) is not None:
        return None
    return Diagnosis(
        "burst",
        Severity.MILD,
        f"{sentence_of(one, run.leaves)}.",
        (Evidence("bad steps in bursts", len(one.rows), ">=", LEAST_BURST),),
        "Look at the batches of these steps. If they are sound, look at what happened just before: "
        "a jump of the learning rate, or a new part of the data. If they were faults, this run "
        "needs no action.",
    )


def _found(run: Run, shape: Shape) -> Pattern | None:
    """Return the largest pattern of this shape that no rule about broken values finds."""
    found = [one for one in patterns_of(run) if one.shape == shape]
    broken = (Reason.NONFINITE, Reason.OVERFLOW, Reason.LOSS_REJECTED)
    if any(one.reason in broken for one in found):
        told = broken_loss(run) is not None or gradient_overflows(run) is not None
        found = [one for one in found if not (told and one.reason in broken)]
    return found[0] if found else None
