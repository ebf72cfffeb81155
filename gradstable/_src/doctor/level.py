"""Gradients that leave their usual level: one layer first, all for good, or a clip too low."""

import numpy as np

from gradstable._src.core.reasons import Reason
from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, all_hold
from gradstable._src.doctor.signals import ENOUGH, NORM_SPIKE, gradient_broken, median, trailing
from gradstable._src.telemetry.run import Run

# An explosion lasts, unlike a single bad batch.
_LASTS = 4
# A layer has grown if its norm is this multiple of the usual one, this many records before others.
_GROWN, _LEAD = 3.0, 2
# And it must be the explosion: more than this share of the total squared norm.
_SHARE = 0.5
# A shift: medians of 4 steps, and of 16, before and after it differ by this factor. The rule
# log_mad lets a rise by a factor of 3 pass immediately.
_NEAR, _FAR, _SHIFT = 4, 16, 3.0
# For good: this many steps follow, and at the end the norm is at least this share of the norm right
# after the shift.
_FOR_GOOD, _STAYS = 32, 0.5
# Clipping is for exceptions: above this share of all steps it acts as a lower learning rate.
_CLIPPED = 0.5
# And the limit must be fixed: its 95th percentile is at most this multiple of its 5th.
_FIXED = 1.1


def layer_grows_first(run: Run) -> Diagnosis | None:
    """Find the layer whose gradient grew before all others, until it was an explosion.

    Rule: the gradient norm is above 10 times its median, or not finite, or the step is rejected,
    for 4 steps in a row or to the end. Up to there, one leaf has been above 3 times its median,
    starting at least 2 leaf records before any other leaf and before the explosion. In the last
    record it makes up more than half of the total squared norm, so that a tiny leaf is not blamed
    for growing.
    """
    at = _explosion(run)
    if at is None or len(run.leaves) < 2:
        return None
    until = int(np.searchsorted(run.leaf_steps, run.step[at]))
    norms, steps = run.leaf_norms[:until], run.leaf_steps[:until]
    left = [_left(norms[:, leaf]) for leaf in range(len(run.leaves))]
    first = left.index(min(left))
    # If no leaf followed, the explosion itself comes next.
    following = min([*left[:first], *left[first + 1 :], len(steps)])
    evidence = (
        Evidence("leaf records before any other leaf grew", following - left[first], ">=", _LEAD),
    )
    if left[first] == len(steps) or not all_hold(evidence):
        return None
    path, began = run.leaves[first], int(steps[left[first]])
    evidence += (
        Evidence("norm of the leaf over its median", _growth(norms[:, first]), ">", _GROWN),
        Evidence("its share of the total squared norm", _share(norms, first), ">", _SHARE),
    )
    if not all_hold(evidence):
        return None
    return Diagnosis(
        "layer_grows_first",
        Severity.SERIOUS,
        f"The gradient of {path} had been growing since step {began:,}, before any other, and "
        f"exploded at step {run.step[at]:,}.",
        evidence,
        f"Look at what is special about {path}: its weight decay, its own learning rate, a "
        "normalization with a small denominator, logits without a limit. gs.rules.block_norm "
        "limits each leaf separately; gs.rate.cap_trust ties each step to the size of its leaf.",
    )


def level_shift(run: Run) -> Diagnosis | None:
    """Find a gradient norm that rises for good from one step to the next and is accepted.

    Rule: the median norm of 4 steps, and that of 16, is above 3 times that of as many steps before;
    32 steps or more follow; the median of the last 16 steps is at least half of that right after
    the rise; and the last 16 steps were not all rejected.
    """
    norms = run.grad_norm
    row = _shift(norms)
    if row is None or trailing(run.rejected) >= _FAR:
        return None
    before, after = median(norms[row - _FAR : row]), median(norms[row : row + _FAR])
    evidence = (
        Evidence("norm of the 16 steps after over the 16 before", after / before, ">", _SHIFT),
        Evidence(
            "norm at the end over the norm right after", median(norms[-_FAR:]) / after, ">=", _STAYS
        ),
    )
    if not all_hold(evidence):
        return None
    held = int(run.rejected[row:].sum())
    tail = f" {held} steps were rejected until the rule adapted." if held else ""
    return Diagnosis(
        "level_shift",
        Severity.MILD,
        f"At step {run.step[row]:,} the gradient norm rose by a factor of {after / before:.3g} "
        f"and stayed there.{tail}",
        evidence,
        "Look at what changed at this step: a sum in place of a mean, the scale of inputs or "
        "targets, another data set, the weight of a loss. If it was intended, you only need to "
        "check the learning rate.",
    )


def clip_too_tight(run: Run) -> Diagnosis | None:
    """Find a fixed limit that clips most steps, and so determines the learning rate.

    Rule: more than 50 % of 20 steps or more are clipped by a fixed limit on the norm (according to
    the recorded reason), and the 95th percentile of the limit is at most 1.1 times its 5th. Limits
    of single leaves and units are not recorded, so clips by these are not judged.
    """
    clipped = run.clipped & (run.reason == Reason.NORM_CLIPPED)
    limits = run.threshold[clipped]
    limits = limits[np.isfinite(limits) & (limits > 0)]
    if not limits.size or len(run.step) < ENOUGH:
        return None
    low, high = np.percentile(limits, [5, 95])
    evidence = (
        Evidence("share of clipped steps", float(clipped.mean()), ">", _CLIPPED),
        Evidence("95th percentile of the limit over its 5th", float(high / low), "<=", _FIXED),
    )
    if not all_hold(evidence):
        return None
    norm = median(run.grad_norm)
    return Diagnosis(
        "clip_too_tight",
        Severity.MILD,
        f"{100 * clipped.mean():.0f} % of the steps were clipped by a limit of about "
        f"{np.median(limits):.3g}, while the median norm is {norm:.3g}: the clip determines the "
        "size of nearly every step.",
        evidence,
        f"Raise the limit above the usual norm, to {3 * norm:.2g} or so, and tune the learning "
        "rate without it; or use gs.rules.log_mad(), whose limit follows the norm.",
    )


def _explosion(run: Run) -> int | None:
    """Return the row of the first explosion that lasts."""
    # The only usual value for growth over many steps is that of the whole run.
    with np.errstate(invalid="ignore"):
        high = run.grad_norm > NORM_SPIKE * median(run.grad_norm)
    bad = run.rejected | gradient_broken(run) | high
    rows = np.flatnonzero(bad)
    end = np.minimum(rows + _LASTS, len(bad))
    before = np.concatenate([[0], np.cumsum(bad)])
    lasting = rows[before[end] - before[rows] == end - rows]
    return int(lasting[0]) if lasting.size else None


def _left(norms: np.ndarray) -> int:
    """Return the record from which a leaf stays above its usual norm; the end if it does not."""
    center = median(norms)
    with np.errstate(invalid="ignore"):
        usual = np.flatnonzero(norms <= _GROWN * center)
    # If it is above from the first record on, or mostly zero, there is no usual norm.
    return int(usual[-1]) + 1 if usual.size and center > 0 else len(norms)


def _growth(norms: np.ndarray) -> float:
    finite = norms[np.isfinite(norms)]
    return float(finite[-1] / median(finite))


def _share(norms: np.ndarray, leaf: int) -> float:
    finite = norms[np.isfinite(norms).all(axis=1)]
    if not len(finite):
        return float("nan")
    last = finite[-1] / finite[-1].max()
    return float(last[leaf] ** 2 / np.sum(last**2))


def _shift(norms: np.ndarray) -> int | None:
    """Return the row of the largest abrupt rise, if there is one."""
    rows = np.arange(_FAR, len(norms) - _FOR_GOOD + 1)
    if not rows.size:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(np.isfinite(norms) & (norms > 0), np.log(norms), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(logs, _NEAR)
    medians = np.median(windows, axis=1)  # NaN if any value is
    rise = medians[rows] - medians[rows - _NEAR]
    if not np.isfinite(rise).any():
        return None
    best = int(np.nanargmax(rise))
    return int(rows[best]) if rise[best] > np.log(_SHIFT) else None
