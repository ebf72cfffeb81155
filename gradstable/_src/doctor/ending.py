"""How a run ends: dead, diverged or locked in; and a log that is incomplete."""

import numpy as np

from gradstable._src.core.reasons import sentence
from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, all_hold, counted
from gradstable._src.doctor.kept import kept_nan
from gradstable._src.doctor.signals import (
    ENOUGH,
    broken_since,
    first_loss,
    gradient_broken,
    largest,
    last_loss,
    over,
    trailing,
)
from gradstable._src.telemetry.returns import returns_of
from gradstable._src.telemetry.run import Run

# An update below this share of the parameters is soon lost in float32 rounding (6e-8 each).
_DEAD_RATIO = 1e-6
# The share of zero gradients in the second half above which nothing moves.
_ZERO_SHARE = 0.5
# A loss that ends at this many times its first value has diverged, finite or not.
_DIVERGED_LOSS = 100.0
_KEPT = (
    " The guard sees a NaN each time, while the loss is not broken: most likely, something in "
    "front of it accumulates gradients and keeps the NaN of one bad batch forever, as "
    "optax.MultiSteps around a guard does."
)
_LET_GO = (
    "If the loss or the gradient is not finite, fix that. If both are finite, the level has "
    "changed and the rule does not adapt: use gs.rules.log_mad(), which does, or restart with a "
    "new state. gs.check raises when this happens."
)
_CURE = (
    "Replace optax.MultiSteps with gs.accumulate(gs.guard(optimizer), k). If a framework wraps "
    "your optimizer in it (Tunix does if gradient_accumulation_steps is set), drop that setting "
    "and pass this optimizer. gs.explain and gs.check find the NaN in the optimizer state and say "
    "how to continue. If nothing accumulates gradients, look for a derivative that is NaN at the "
    "current parameters."
)
# This many rejections in a row at the end mean that a run is stuck, as in gradstable report. For a
# run that has only just started, fewer are enough, but two or three say nothing.
_STUCK, _STUCK_AT_FIRST = 20, 8


def dead(run: Run) -> Diagnosis | None:
    """Find a run in which nothing moves: tiny updates, or a zero gradient.

    Rule, for the accepted steps of the second half of 20 steps or more: the largest update ratio is
    below 1e-6, or the gradient norm is 0 in more than half of them. Steps in which ``gs.rollback``
    pauses a run do not count.
    """
    if len(run.step) < ENOUGH:
        return None
    half = np.arange(len(run.step)) >= len(run.step) // 2
    accepted = half & ~run.rejected & ~gradient_broken(run)
    back = returns_of(run)
    if back is not None:  # a paused run does not move on purpose
        accepted &= ~back.held
    if accepted.sum() <= half.sum() / 2:
        return None
    highest = largest(run.update_ratio[accepted])
    zero = float((run.grad_norm[accepted] == 0).mean())
    if zero > _ZERO_SHARE:
        evidence = Evidence("share of zero gradients in the second half", zero, ">", _ZERO_SHARE)
        what = "the gradient is zero"
        advice = (
            "Look for what cuts off the gradient: dead units, a saturated or clipped loss, "
            "rounding, argmax, stop_gradient, parameters that the loss does not use."
        )
    else:
        evidence = Evidence("largest update ratio of the second half", highest, "<", _DEAD_RATIO)
        what = f"no update is larger than {highest:.2g} of the parameters"
        advice = (
            "Check the learning rate and its schedule: is it in the right units, has it already "
            "ended, does a mask or a freeze cover all leaves?"
        )
    if not evidence.holds:
        return None
    return Diagnosis("dead", Severity.FATAL, f"Nothing moves: {what}.", (evidence,), advice)


def diverged(run: Run) -> Diagnosis | None:
    """Find a run that died: NaN or infinite to the end, and not rejected.

    Rule: from some step to the last (at least 1 step), the loss or the gradient is not finite in
    every step that was not rejected; or the median loss of the accepted steps of the last quarter
    is above 100 times the first.
    """
    first = broken_since(run)
    if first < len(run.step):
        passed = int((~run.rejected[first:]).sum())
        evidence = Evidence("non-finite steps at the end that were not rejected", passed, ">=", 1)
        what = f"from step {run.step[first]:,} to the end, the loss or gradient was not finite"
    else:
        rise = over(last_loss(run), first_loss(run))
        evidence = Evidence("loss of the last quarter over the first", rise, ">", _DIVERGED_LOSS)
        what = f"the loss ended at {rise:.3g} times its first value"
    # A locked guard is not a divergence: the steps it rejects do not count.
    if not evidence.holds or trailing(run.rejected) >= _STUCK:
        return None
    return Diagnosis(
        "diverged",
        Severity.FATAL,
        f"The run is lost: {what}.",
        (evidence,),
        "Restart from a checkpoint before that step, put gs.guard around the optimizer, and fix "
        "the cause if one is named above. gs.check raises as soon as a run is beyond help.",
    )


def locked_in(run: Run) -> Diagnosis | None:
    """Find a run in which every step is rejected, to the very end.

    Rule: the last 20 steps or more were rejected; or all steps, if there are at least 8. If they
    look like a NaN that is kept in front of the guard (``kept_nan``), the diagnosis says so.
    """
    number = trailing(run.rejected)
    needed = max(min(_STUCK, len(run.step)), _STUCK_AT_FIRST)
    evidence = (Evidence("rejected steps in a row at the end", number, ">=", needed),)
    if not all_hold(evidence):
        return None
    reasons, counts = np.unique(run.reason[-number:], return_counts=True)
    why = sentence(int(reasons[np.argmax(counts)]))
    kept = kept_nan(run)
    if kept:
        evidence += (Evidence("of these that look like a kept NaN", kept, ">=", _STUCK),)
    return Diagnosis(
        "locked_in",
        Severity.FATAL,
        f"The last {counted(number, 'step')} were all rejected, from step {run.step[-number]:,} "
        f"on, most of them because {why}. Parameters are those of the last good step."
        + (_KEPT if kept else ""),
        evidence,
        _CURE if kept else _LET_GO,
    )


def log_incomplete(run: Run) -> Diagnosis | None:
    """Find a log with holes, or without an end.

    Rule: at least 1 step is missing, at least 1 line of the file is broken, or the log was not
    closed.
    """
    missing = int(run.step[-1] - run.step[0]) + 1 - len(run.step) if len(run.step) else 0
    # Steps before the first one read can be overwritten too.
    begin = int(run.step[0]) if len(run.step) else np.inf
    missing += sum(last - first + 1 for first, last in run.lost if last < begin)
    holes, evidence = [], []
    if missing:
        why = "with broken lines" if run.damaged else "overwritten before they were read"
        if run.damaged and run.lost:
            why = "overwritten before they were read, or with broken lines"
        holes.append(f"{counted(missing, 'step')} {why}")
        evidence.append(Evidence("missing steps", missing, ">=", 1))
    if run.damaged:
        first = f" ({run.remarks[0]})" if run.remarks else ""
        holes.append(f"{counted(run.damaged, 'line')} of the file broken and left out{first}")
        evidence.append(Evidence("broken lines", run.damaged, ">=", 1))
    if not run.ended:
        holes.append("the log was never closed: the run is still going, or its process died")
        evidence.append(Evidence("times the log was closed", 0, "<", 1))
    if not holes:
        return None
    return Diagnosis(
        "log_incomplete",
        Severity.NOTE,
        f"The log is incomplete: {'; '.join(holes)}. The diagnosis covers the rest.",
        tuple(evidence),
        "Call the log after every step, and let it read at least once every `capacity` steps. "
        "Around a lax.scan, pass it the states before and after, and give gs.record a capacity "
        "equal to the length of the scan. Use the log as a context manager, so that it is always "
        "closed.",
    )
