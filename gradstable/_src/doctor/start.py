"""Trouble in the first steps: parameters that start too large, or a rate that rises too soon."""

import numpy as np

from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, all_hold
from gradstable._src.doctor.rate import LEARNED, RATIO_TOO_HIGH, early, late_ratio
from gradstable._src.doctor.signals import (
    ENOUGH,
    LOSS_SPIKE,
    first_loss,
    largest,
    last_loss,
    median,
    over,
    setting,
    usual_kind,
)
from gradstable._src.telemetry.run import Run

# No usual loss starts above this: the log of a vocabulary of 2^18 is 12.5, standardized targets
# give 1.
_ENORMOUS_LOSS = 100.0
# And they must fall: the factor by which loss and norm come down on their own.
_FALLS = 3.0
# The smallest of this many steps, to exclude an odd batch or a wild first update.
_FIRST = 3
# The early updates must be this many times the later ones.
_EARLY_RATIO = 3.0


def exploding_initialization(run: Run) -> Diagnosis | None:
    """Find an enormous loss and gradient at the start that then fall on their own.

    Rule, for 20 steps or more: the smallest loss of the first 3 is above 100 (a mean over examples
    usually starts between 1 and 12), and the smallest loss and gradient norm of these are above 3
    times the medians of the last quarter.
    """
    if not np.isfinite(first_loss(run)) or len(run.step) < ENOUGH:
        return None
    loss, norm = float(run.loss[:_FIRST].min()), float(run.grad_norm[:_FIRST].min())
    last_norm = median(run.grad_norm[-max(len(run.step) // 4, 1) :])
    losses_fall, norms_fall = over(loss, last_loss(run)), over(norm, last_norm)
    evidence = (
        Evidence("smallest loss of the first 3 steps", loss, ">", _ENORMOUS_LOSS),
        Evidence("the same over the loss of the last quarter", losses_fall, ">", _FALLS),
        Evidence("first gradient norm over that of the last quarter", norms_fall, ">", _FALLS),
    )
    if not all_hold(evidence):
        return None
    return Diagnosis(
        "exploding_initialization",
        Severity.SERIOUS,
        f"The run started with a loss of {loss:.3g} and a gradient norm of {norm:.3g}, and both "
        "came down later: the initial parameters, the inputs or the targets are too large.",
        evidence,
        "Initialize kernels with variance 1 / inputs (2 / inputs before a relu), start residual "
        "branches and the last layer at or near 0, and check the scale of inputs and targets. "
        "gs.rules.global_norm(1.0) in front of the default rule bounds the first steps.",
    )


def warmup_too_short(run: Run) -> Diagnosis | None:
    """Find first steps that drive the loss up before the run recovers.

    Rule, where the start is the first 5 % of 20 steps or more, but at least 10: in the start, the
    loss rises above 2 times its first value, and above 2 times the 95th percentile of the second
    half, so that it is not noise; the largest update ratio of the start is above 3e-2, and above 3
    times the median of the rest; the loss of the last quarter is below 0.8 times the first, and the
    median ratio of the second half is below 3e-2 (otherwise the rate itself is too high). Not
    diagnosed if ``warmup_steps`` in the config covers the start.
    """
    start = early(run)
    first, known = first_loss(run), setting(run, "warmup_steps")
    if not start or np.nan_to_num(known) >= start:
        return None
    ratios = run.update_ratio[: start + 1]  # a row has the ratio of the previous update
    highest = largest(ratios)
    rest = median(run.update_ratio[start + 1 :])
    peak = largest(run.loss[:start][usual_kind(run)[:start]])
    half = run.loss[len(run.step) // 2 :]
    half = half[np.isfinite(half)]
    noise = float(np.percentile(half, 95)) if half.size else float("nan")
    evidence = (
        Evidence(
            f"largest loss of the first {start} steps over the first",
            over(peak, first),
            ">",
            LOSS_SPIKE,
        ),
        Evidence("the same over the 95th percentile later", over(peak, noise), ">", LOSS_SPIKE),
        Evidence(f"largest update ratio of the first {start} steps", highest, ">", RATIO_TOO_HIGH),
        Evidence("the same over the median of the rest", over(highest, rest), ">", _EARLY_RATIO),
        Evidence(
            "loss of the last quarter over the first", over(last_loss(run), first), "<", LEARNED
        ),
        Evidence("median update ratio of the second half", late_ratio(run), "<", RATIO_TOO_HIGH),
    )
    if not all_hold(evidence):
        return None
    has = f"it has {known:.0f} steps" if np.isfinite(known) else "none is recorded"
    return Diagnosis(
        "warmup_too_short",
        Severity.SERIOUS,
        f"In the first {start} steps the loss rose from {first:.3g} to {peak:.3g}, with updates up "
        f"to {highest:.2g} of the parameters; then it recovered. The warm-up is too short ({has}).",
        evidence,
        f"Raise the learning rate from 0 over the first {max(2 * start, 20)} steps or more, as "
        "optax.warmup_cosine_decay_schedule does. gs.stable_adamw and "
        "gs.moments.scale_by_radam need less of it.",
    )
