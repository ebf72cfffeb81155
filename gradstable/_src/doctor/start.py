"""What goes wrong in the first steps: parameters that begin too large, a rate too high at once."""

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
)
from gradstable._src.telemetry.run import Run

# No usual loss begins above: the log of a vocabulary of 2^18 is 12.5, standardized targets give 1.
_ENORMOUS_LOSS = 100.0
# And falling: by how much loss and norm come down of themselves.
_FALLS = 3.0
# The least of this many steps: it is no odd batch, and no wild first update either.
_FIRST = 3
# The early updates are this many times the later ones.
_EARLY_RATIO = 3.0


def exploding_initialization(run: Run) -> Diagnosis | None:
    """Find an enormous loss and gradient in the beginning, which then fall of themselves.

    Rule, in 20 steps or more: the least loss of the first 3 is above 100 (where a mean over
    examples usually begins between 1 and 12), and the least loss and gradient norm of these are
    above 3 times the medians of the last quarter.
    """
    if not np.isfinite(first_loss(run)) or len(run.step) < ENOUGH:
        return None
    loss, norm = float(run.loss[:_FIRST].min()), float(run.grad_norm[:_FIRST].min())
    last_norm = median(run.grad_norm[-max(len(run.step) // 4, 1) :])
    losses_fall, norms_fall = over(loss, last_loss(run)), over(norm, last_norm)
    evidence = (
        Evidence("least loss of the first 3 steps", loss, ">", _ENORMOUS_LOSS),
        Evidence("the same over the loss of the last quarter", losses_fall, ">", _FALLS),
        Evidence("first gradient norm over that of the last quarter", norms_fall, ">", _FALLS),
    )
    if not all_hold(evidence):
        return None
    return Diagnosis(
        "exploding_initialization",
        Severity.SERIOUS,
        f"The run began with a loss of {loss:.3g} and a gradient norm of {norm:.3g}, and both came "
        "down later: the first parameters are too large, or inputs or targets are.",
        evidence,
        "Draw kernels with variance 1 / inputs (2 / inputs before a relu), begin residual "
        "branches and the last layer at 0 or near it, and check the scale of inputs and targets. "
        "gs.rules.global_norm(1.0) in front of the default rule bounds the first steps.",
    )


def warmup_too_short(run: Run) -> Diagnosis | None:
    """Find first steps that throw the loss up, after which the run recovers.

    Rule, with the beginning being the first 5 % of 20 steps or more, 10 at least: the loss rises
    there above 2 times its first value, and above 2 times the 95th percentile of the second half,
    so that it is no noise; the largest update ratio of the beginning is above 3e-2, and above 3
    times the median of the rest; the loss of the last quarter is below 0.8 times the first, and
    the median ratio of the second half below 3e-2 (else the rate itself is too high).
    Not diagnosed where ``warmup_steps`` in the config covers the beginning.
    """
    start = early(run)
    first, known = first_loss(run), setting(run, "warmup_steps")
    if not start or np.nan_to_num(known) >= start:
        return None
    ratios = run.update_ratio[: start + 1]  # a row has the ratio of the update before it
    highest = largest(ratios)
    rest = median(run.update_ratio[start + 1 :])
    peak = largest(run.loss[:start])
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
    has = f"the warm-up has {known:.0f}" if np.isfinite(known) else "no warm-up is noted"
    return Diagnosis(
        "warmup_too_short",
        Severity.SERIOUS,
        f"In the first {start} steps the loss rose to {peak:.3g} from {first:.3g}, with updates up "
        f"to {highest:.2g} of the parameters; then it recovered. The warm-up is too short ({has}).",
        evidence,
        f"Raise the learning rate from 0 over the first {max(2 * start, 20)} steps or more, as "
        "optax.warmup_cosine_decay_schedule does. gs.stable_adamw and "
        "gs.moments.scale_by_radam need less of it.",
    )
