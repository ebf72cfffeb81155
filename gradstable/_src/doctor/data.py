"""Trouble with single batches: broken values, overflow, and outliers."""

import numpy as np

from gradstable._src.core.reasons import LET_IN
from gradstable._src.doctor.diagnosis import (
    Diagnosis,
    Evidence,
    Severity,
    all_hold,
    counted,
    listed,
)
from gradstable._src.doctor.kept import kept_nan
from gradstable._src.doctor.rate import learning_rate_too_high
from gradstable._src.doctor.signals import (
    LOSS_SPIKE,
    NORM_USUAL,
    RATIO_JUMP,
    Stretches,
    ahead,
    broken_since,
    episodes,
    gradient_broken,
    largest,
    loss_broken,
    multiple,
    row_medians,
    stretches,
    sudden,
    usual,
    which_sudden,
)
from gradstable._src.telemetry.patterns import around_steady, in_bursts
from gradstable._src.telemetry.run import Run

# Dtypes that overflow at 65504; bfloat16 has the range of float32.
_HALF = ("float16", "f16", "half", "fp16")
# A single broken gradient can be an accident; two in float16 are not.
_OVERFLOWS, _OVERFLOWS_IN_HALF = 3, 2
# A loss scale that doubles every 2,000 good steps overflows that often by design: ten times as
# often is too often.
_OVERFLOW_SHARE = 0.005
# A bad batch is one, or a few in a row; the steps after it show that the run continues.
_LONGEST, _AFTERWARDS = 3, 8
# At least this many of those steps must exist.
_LEAST_AFTERWARDS = 4


def broken_loss(run: Run) -> Diagnosis | None:
    """Find a loss that is suddenly not finite, which points to the data or the forward pass.

    Rule: at 1 step or more the loss is NaN or infinite, and the step before the first of these in a
    row is recorded, its gradient was finite or rejected, and its loss and gradient norm were at
    most 10 times their usual values (the median of the 32 steps before) and their medians of all
    steps before. The very first step has no step before it.
    """
    broken = loss_broken(run)
    if not broken.any():
        return None
    found = stretches(broken)
    here = which_sudden(run, found.first)
    if not here.any():
        return None
    at = run.step[found.first[here]].tolist()
    steps = int((found.end - found.first)[here].sum())
    held = int((broken & run.rejected).sum())
    tail = f", {held:,} of these steps rejected" if held else ""
    return Diagnosis(
        "broken_loss",
        Severity.SERIOUS,
        f"The loss itself was NaN or infinite at {counted(steps, 'step')}, from step "
        f"{listed(at)} on, with nothing unusual before{tail}: the data or the forward pass is "
        "broken.",
        (Evidence("steps with a sudden non-finite loss", steps, ">=", 1),),
        "Look at the batches of these steps for missing values, empty sequences or a mask that "
        "hides everything. If they are clean, look for a division, logarithm or root in the loss; "
        "gs.losses.masked_mean and gs.losses.softmax_cross_entropy handle zeros. gs.guard keeps "
        "such steps out of parameters and state.",
    )


def gradient_overflows(run: Run) -> Diagnosis | None:
    """Find gradients that break while the loss does not: a loss scale too high, or a root at 0.

    Rule: at 3 steps or more (2 where float16 is known to be used: ``compute_dtype`` in the
    config, or the dtype of a leaf), and above 0.5 % of all, the gradient is not finite while the
    loss is. Or at 1 step that was not rejected and after which the run stayed broken, if the step
    before satisfies the conditions of ``broken_loss``.
    """
    if not run.has_loss:
        return None
    broken = gradient_broken(run) & np.isfinite(run.loss)
    # If a NaN is kept to the end, single gradients say nothing.
    broken[len(broken) - kept_nan(run) :] = False
    found = np.flatnonzero(broken)
    half = _computes_in_half(run)
    needed = _OVERFLOWS_IN_HALF if half else _OVERFLOWS
    broke = bool(found.size) and found[0] == broken_since(run) and sudden(run, int(found[0]))
    evidence = (
        Evidence(
            "steps with a finite loss and a broken gradient",
            len(found),
            ">=",
            1 if broke else needed,
        ),
    )
    if not broke:
        share = len(found) / max(len(run.step), 1)
        evidence += (Evidence("their share of all steps", share, ">", _OVERFLOW_SHARE),)
    if not all_hold(evidence):
        return None
    if half or "loss_scale" in run.config:
        cause = "the loss scale is too high for the compute dtype"
        advice = (
            "Lower the loss scale, or let a dynamic one grow less often: double it after 2,000 "
            "good steps. bfloat16 needs no loss scale."
        )
    else:
        cause = "a derivative is infinite where its function is not, or low precision overflows"
        advice = (
            "If you compute in float16, lower the loss scale. Otherwise look for sqrt, norm, log "
            "or a power at 0: add a small number inside, or mask the entry before it, not after."
        )
    at = run.step[found].tolist()
    return Diagnosis(
        "gradient_overflows",
        Severity.SERIOUS,
        f"The gradient was not finite at {counted(len(at), 'step')} ({listed(at)}) where the loss "
        f"was: {cause}.",
        evidence,
        advice,
    )


def bad_batches(run: Run) -> Diagnosis | None:
    """Find single outlier batches after which the run continues.

    Rule, for at least 1 stretch of at most 3 steps: they were rejected with a norm above 3 times
    its usual value or not finite, or their norm was above 10 times its usual value and their loss
    above 2 times; the norm in the step before was at most 3 times, and the update before them at
    most 4 times its usual size, so that they came without warning; and the median norm of the next
    8 steps is at most 3 times its usual value again, with none of the first 4 of them bad. Not
    counted are non-finite losses (``broken_loss``), overflow that is repeated
    (``gradient_overflows``) or in float16, where a loss scale finds its limit this way, what is
    near a steady share of large norms (``recurring_gradients``) or in a ``burst``, and runs whose
    learning rate is too high, which spike on their own.
    """
    if learning_rate_too_high(run) is not None:
        return None
    bad = episodes(run)
    following = np.append(bad.first[1:], len(run.step))
    short = (bad.end - bad.first <= _LONGEST) & (following - bad.end >= _LEAST_AFTERWARDS)
    bad = Stretches(bad.first[short], bad.end[short])
    frequent = around_steady(run) | in_bursts(run)
    found = Stretches(*(ends[_isolated(run, bad) & ~bad.any(frequent)] for ends in bad))
    if not len(found.first):
        return None
    at = run.step[found.first].tolist()
    rows = np.zeros(len(run.step) + 1, np.int8)
    rows[found.first], rows[found.end] = 1, -1
    rows = np.flatnonzero(np.cumsum(rows[:-1]))
    held = int(run.rejected[rows].sum())
    let_in = int(np.isin(run.reason[rows], LET_IN).sum())
    fate = "all rejected" if held == len(rows) else f"{held:,} of them rejected"
    if let_in:
        fate = f"{held:,} of them rejected, {let_in:,} clipped to the usual size"
    if let_in == len(rows):
        fate = "all clipped to the usual size"
    worst = largest(multiple(run.grad_norm)[rows])
    size = f" The largest norm was {worst:.3g} times the usual." if np.isfinite(worst) else ""
    return Diagnosis(
        "bad_batches",
        Severity.MILD,
        f"{counted(len(rows), 'bad step')} in isolation ({fate}), at step {listed(at)}; the run "
        f"continued after each.{size}",
        (Evidence("isolated stretches of bad steps", len(at), ">=", 1),),
        "If they were rejected or clipped, this run needs no action. Look at the batches of these "
        "steps, their labels and weights. Without a guard, put one around the optimizer: "
        "gs.guard(...).",
    )


def _computes_in_half(run: Run) -> bool:
    named = [str(run.config.get("compute_dtype", "")), *run.dtypes]
    return any(dtype.rpartition(".")[2] in _HALF for dtype in named)


def _isolated(run: Run, bad: Stretches) -> np.ndarray:
    """Return which stretches came without warning and left no trace (bool ``[k]``)."""
    norms, losses, ratios = map(multiple, (run.grad_norm, run.loss, run.update_ratio))
    explained = bad.any(loss_broken(run))
    if gradient_overflows(run) is not None or _computes_in_half(run):
        explained |= bad.any(gradient_broken(run))
    with np.errstate(invalid="ignore"):
        # A rejected norm of usual size means that a rule has not caught up yet.
        held = bad.all(run.rejected) & ~bad.any(norms <= NORM_USUAL)
        seen = held | bad.any(losses > LOSS_SPIKE)
        # The ratio of a row is that of the previous update. Unknown ratios do not count.
        before = np.maximum(bad.first - 1, 0)
        announced = (norms[before] > NORM_USUAL) | (ratios[bad.first] > RATIO_JUMP)
        after = ahead(run.grad_norm, bad.end, _AFTERWARDS, row_medians)
        returns = after <= NORM_USUAL * usual(run.grad_norm)[bad.first]
    return ~explained & seen & (bad.first > 0) & ~announced & returns
