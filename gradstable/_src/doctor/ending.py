"""What a run has come to: dead, diverged, locked in; and a log that does not say."""

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
from gradstable._src.telemetry.run import Run

# An update below this share of the parameters is lost in the rounding of float32 soon (6e-8 each).
_DEAD_RATIO = 1e-6
# A zero gradient in more than this share of the second half.
_ZERO_SHARE = 0.5
# A loss that ends at this many times its first value has diverged, finite or not.
_DIVERGED_LOSS = 100.0
_KEPT = (
    " What the guard sees has a NaN each time, while the loss is not broken: most likely something "
    "in front of it gathers gradients and keeps the NaN of one bad batch, as optax.MultiSteps "
    "around a guard does for ever."
)
_LET_GO = (
    "If loss or gradient are not finite, cure that. If they are, the level has changed and the "
    "rule does not let go: gs.rules.log_mad() does, or restart with a new state. gs.check "
    "raises when this happens."
)
_CURE = (
    "Put gs.accumulate(gs.guard(optimizer), k) in the place of optax.MultiSteps. If a framework "
    "wraps your optimizer in it (Tunix does where gradient_accumulation_steps is set), leave that "
    "setting out and pass this optimizer. gs.explain and gs.check find the NaN in the optimizer "
    "state, and say how to go on from it. If nothing gathers gradients, look for a derivative "
    "that is NaN for the parameters as they are."
)
# So many rejections in a row at the end are what the run has come to; as in gradstable report.
# A run that has only begun is stuck with fewer, but two or three say nothing.
_STUCK, _STUCK_AT_FIRST = 20, 8


def dead(run: Run) -> Diagnosis | None:
    """Find that nothing moves: updates are next to nothing, or the gradient is zero.

    Rule, for the accepted steps of the second half of 20 steps or more: the largest update ratio is
    below 1e-6, or the gradient norm is 0 in more than half of them.
    """
    if len(run.step) < ENOUGH:
        return None
    half = np.arange(len(run.step)) >= len(run.step) // 2
    accepted = half & ~run.rejected & ~gradient_broken(run)
    if accepted.sum() <= half.sum() / 2:
        return None
    highest = largest(run.update_ratio[accepted])
    zero = float((run.grad_norm[accepted] == 0).mean())
    if zero > _ZERO_SHARE:
        evidence = Evidence("share of zero gradients in the second half", zero, ">", _ZERO_SHARE)
        told = "the gradient is zero"
        advice = (
            "Look for what cuts the gradient: units that are all off, a saturated or clipped "
            "loss, rounding, argmax, stop_gradient, parameters that the loss does not use."
        )
    else:
        evidence = Evidence("largest update ratio of the second half", highest, "<", _DEAD_RATIO)
        told = f"no update is larger than {highest:.2g} of the parameters"
        advice = (
            "Look at the learning rate and its schedule: is it in the right unit, is it over "
            "already, does a mask or a freeze cover all leaves?"
        )
    if not evidence.holds:
        return None
    return Diagnosis("dead", Severity.FATAL, f"Nothing moves: {told}.", (evidence,), advice)


def diverged(run: Run) -> Diagnosis | None:
    """Find a run that died: NaN or infinite to the end, and nobody rejected it.

    Rule: from some step to the last, at least 1, loss or gradient are not finite in every step
    that was not rejected; or the median loss of the last quarter, of its accepted steps, is above
    100 times the first.
    """
    first = broken_since(run)
    if first < len(run.step):
        passed = int((~run.rejected[first:]).sum())
        evidence = Evidence(
            "steps at the end that are not finite and not rejected", passed, ">=", 1
        )
        told = f"from step {run.step[first]:,} to the end loss or gradient were not finite"
    else:
        rise = over(last_loss(run), first_loss(run))
        evidence = Evidence("loss of the last quarter over the first", rise, ">", _DIVERGED_LOSS)
        told = f"the loss ended at {rise:.3g} times its first value"
    # A locked guard is no divergence: what it rejects does not count.
    if not evidence.holds or trailing(run.rejected) >= _STUCK:
        return None
    return Diagnosis(
        "diverged",
        Severity.FATAL,
        f"The run is lost: {told}.",
        (evidence,),
        "Go back to a checkpoint before that step, put gs.guard around the optimizer, and cure "
        "the cause that is named above, if one is. gs.check raises as soon as a run is past help.",
    )


def locked_in(run: Run) -> Diagnosis | None:
    """Find that every step is rejected, to the very end.

    Rule: the last 20 steps or more were rejected; or all that there are, 8 at least. Where they
    look like a NaN that is kept in front of the guard (``kept_nan``), it says so.
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
        evidence += (Evidence("of these as if a NaN was kept", kept, ">=", _STUCK),)
    return Diagnosis(
        "locked_in",
        Severity.FATAL,
        f"The last {counted(number, 'step')} were all rejected, from step {run.step[-number]:,} "
        f"on, most because {why}. Parameters are those of the last good step."
        + (_KEPT if kept else ""),
        evidence,
        _CURE if kept else _LET_GO,
    )


def log_incomplete(run: Run) -> Diagnosis | None:
    """Find a record with holes, or without an end.

    Rule: 1 step or more is missing, 1 line of the file or more is broken, or the log was not
    closed.
    """
    missing = int(run.step[-1] - run.step[0]) + 1 - len(run.step) if len(run.step) else 0
    # Steps may be overwritten before the first that was read, too.
    begin = int(run.step[0]) if len(run.step) else np.inf
    missing += sum(last - first + 1 for first, last in run.lost if last < begin)
    told, evidence = [], []
    if missing:
        why = "with lines that are broken" if run.damaged else "overwritten before they were read"
        if run.damaged and run.lost:
            why = "overwritten before they were read, or with lines that are broken"
        told.append(f"{counted(missing, 'step')} {why}")
        evidence.append(Evidence("steps that are missing", missing, ">=", 1))
    if run.damaged:
        first = f" ({run.remarks[0]})" if run.remarks else ""
        told.append(f"{counted(run.damaged, 'line')} of the file broken and left out{first}")
        evidence.append(Evidence("lines that are broken", run.damaged, ">=", 1))
    if not run.ended:
        told.append("the log was never closed: the run still goes on, or its process died")
        evidence.append(Evidence("times the log was closed", 0, "<", 1))
    if not told:
        return None
    return Diagnosis(
        "log_incomplete",
        Severity.NOTE,
        f"The log is incomplete: {'; '.join(told)}. What is said here is of the rest.",
        tuple(evidence),
        "Call the log after every step, and read it at least once in every `capacity` steps; "
        "around a lax.scan, show it the states before and after, with a capacity of gs.record that "
        "is the length of the scan. Use the log as a context "
        "manager, so that it is closed whatever happens.",
    )
