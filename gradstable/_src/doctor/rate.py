"""Steps that are too large: a rate that is too high or jumps, or a second moment that lags."""

import numpy as np

from gradstable._src.doctor.diagnosis import (
    Diagnosis,
    Evidence,
    Severity,
    all_hold,
    counted,
    listed,
)
from gradstable._src.doctor.signals import (
    ENOUGH,
    HISTORY,
    LOSS_SPIKE,
    NORM_USUAL,
    RATIO_JUMP,
    RMS_LAGS,
    ahead,
    broken_since,
    first_loss,
    largest,
    last_loss,
    median,
    multiple,
    over,
    row_largest,
    setting,
    sigmas,
    usual,
    usual_kind,
)
from gradstable._src.telemetry.returns import returns_of
from gradstable._src.telemetry.run import Run

# The usual heuristic: an update of 1e-3 of the parameters is healthy, above 1e-2 is alarming.
RATIO_ALARM = 1e-2
# Three times that is too high if it lasts: all parameters are replaced in 33 steps.
RATIO_TOO_HIGH = 3e-2
# Parameters that start at 0 and grow evenly have a ratio of 1 / k in step k, whatever the rate:
# from this many steps on, the ratio of the second half is below 3e-2.
_LONG_ENOUGH = 64
# With updates this large at the start, the parameters are destroyed and may never learn.
_RATIO_WRECKS = 0.1
# A run has learned if its loss fell below this share of the first. Random logits start up to a
# fifth above the loss of a constant guess, so losing that fifth is not learning.
LEARNED = 0.8
# The start: this share of the steps, and at least this many.
_EARLY_SHARE, _EARLY_LEAST = 0.05, 10
# Before a run breaks, over this many steps or over all, the loss rises by this factor.
_LAST, _RISES = 8, 10.0
# To exclude noise: this many robust standard deviations, as for the alarms of gs.record.
_SIGMAS = 6.0
# A jump is over within this many steps, and back to this multiple of the earlier usual value.
_OVER_WITHIN, _OVER_AT = 20, 2.0
# The lag shows up to this many steps before the loss spikes, after as many quiet steps. Wortsman et
# al. saw 1 to 8; in a noise-free fit RMS_t starts to rise earlier.
_AHEAD, _QUIET = 16, 16
# RMS_t then reaches this multiple of its usual value, while the loss is still below this one.
_LAGS_AT_LEAST, _LOSS_CALM = 4.0, 1.5
_HIGH_B2 = 0.99


def early(run: Run) -> int:
    """Return how many steps count as the start; 0 if it is not recorded or the run is too short."""
    if len(run.step) < ENOUGH or run.step[0] != 1:
        return 0
    return max(_EARLY_LEAST, int(_EARLY_SHARE * len(run.step)))


def late_ratio(run: Run) -> float:
    """Return the median update ratio of the second half, without the zeros of rejected steps."""
    half = run.update_ratio[len(run.step) // 2 :]
    return median(half[half > 0])


def learning_rate_too_high(run: Run) -> Diagnosis | None:
    """Find updates that are too large for the parameters, throughout or until they broke the run.

    Rule, any of three:

    - in 64 steps or more, the median update ratio of the second half is above 3e-2;
    - that of the start (5 % of 20 steps or more, but at least 10) is above 0.1, the loss rises
      there above 2 times the first, and the loss of the last quarter is above 0.8 times the first;
    - the loss or the gradient becomes infinite or NaN and stays so, the median update ratio of the
      32 steps before is above 1e-2, and the loss has risen at least 10 times, within the last 8 of
      them or since the first step.
    """
    found = next(
        (one for one in (_at_the_end(run), _before_it_broke(run), _at_first(run)) if one), None
    )
    if found is None:
        return None
    sentence, evidence = found
    rate = setting(run, "learning_rate")
    named = f" It was set to {rate:g}." if np.isfinite(rate) else ""
    return Diagnosis(
        "learning_rate_too_high",
        Severity.SERIOUS,
        f"The learning rate is too high: {sentence}.{named}",
        evidence,
        "Divide the learning rate by 3 to 10, until the update ratio is near 1e-3. "
        "gs.rate.limit_schedule and gs.rate.cap_trust keep steps below a limit; gs.stable_adamw "
        "limits each step relative to its parameters.",
    )


def learning_rate_jump(run: Run) -> Diagnosis | None:
    """Find a step size that jumps and falls back without an explanation in the gradient.

    Rule: from one step to the next, the update ratio goes from at most 2 times to above 4 times its
    usual value, also when divided by the multiple of the gradient norm that made it, and beyond 6
    robust standard deviations of its logarithm; that norm was at most 3 times, and its ``RMS_t`` at
    most 2.3 times the usual value; and within 20 steps the ratio is at most 2 times again.
    """
    ratios, norms, lags = map(multiple, (run.update_ratio, run.grad_norm, run.rms))
    before = usual(run.update_ratio)
    with np.errstate(invalid="ignore"):
        # Unknown values of RMS_t do not count.
        calm = (norms <= NORM_USUAL) & ~(lags > RMS_LAGS) & (ratios <= _OVER_AT) & ~run.rejected
        # In plain SGD, the update grows in proportion to the gradient.
        high = ratios[1:] > RATIO_JUMP * np.maximum(norms[:-1], 1.0)
        far = sigmas(run.update_ratio)[1:] > _SIGMAS
        # An update whose gradient was not recorded cannot be judged.
        adjacent = np.diff(run.step) == 1
        back = returns_of(run)
        if back is not None:  # the update of a rollback is not that of a learning rate
            adjacent &= ~back.held[:-1]
        jumped = np.flatnonzero(calm[:-1] & high & far & adjacent) + 1
        # fmin ignores unknown values.
        after = ahead(run.update_ratio, jumped + 1, _OVER_WITHIN, _least)
        over = jumped[after <= _OVER_AT * before[jumped]]
    if not over.size:
        return None
    size = float(ratios[over].max())
    # The ratio of a row is that of the previous update.
    at = run.step[over - 1].tolist()
    soon = "updates were soon back to normal"
    if back is not None and ahead(back.held * 1.0, over, _OVER_WITHIN, row_largest).any():
        soon = "the run was soon rolled back"
    return Diagnosis(
        "learning_rate_jump",
        Severity.SERIOUS,
        f"The update at step {listed(at)} was {size:.3g} times the usual size after an ordinary "
        f"gradient, and {soon}: the learning rate jumped.",
        (
            Evidence("update ratio over its usual value", size, ">", RATIO_JUMP),
            Evidence("gradient norm before it over its usual value",
                     float(norms[over - 1].max()), "<=", NORM_USUAL),
        ),
        "Look at the schedule around this step for a boundary, a restart, a counter that was "
        "reset, or a rate read from elsewhere. gs.rate.limit_schedule bounds what a schedule may "
        "return.",
    )  # fmt: skip


def second_moment_lags(run: Run) -> Diagnosis | None:
    """Find a gradient that outgrows the second moment, followed by a loss spike.

    Rule: after at least 16 quiet steps, ``RMS_t`` rises above 2.3 times its usual value and reaches
    4 times or more, while at first the loss is still at most 1.5 times and the update at most 4
    times its usual value; within 16 steps, but after that, the loss is above 2 times. Not
    counted are clipped and rejected steps near a steady share of large norms
    (``recurring_gradients``).
    """
    lags, losses, ratios = map(multiple, (run.rms, run.loss, run.update_ratio))
    with np.errstate(invalid="ignore"):
        lag = lags > RMS_LAGS
        calm = (losses <= _LOSS_CALM) & (ratios <= RATIO_JUMP) & ~run.rejected
    before = np.concatenate([[0], np.cumsum(lag)])
    began = np.flatnonzero(lag & calm)
    began = began[before[began] == before[np.maximum(began - _QUIET, 0)]]
    found = _worst_lag(run, began)
    if found is None:
        return None
    row, spiked, peak, height = found
    b2 = setting(run, "b2")
    lower = not b2 < _HIGH_B2
    known = f" (b2 is {b2:g})" if np.isfinite(b2) else ""
    leaf = run.rms_leaf[row]
    where = f", in {run.leaves[leaf]}" if 0 <= leaf < len(run.leaves) else ""
    return Diagnosis(
        "second_moment_lags",
        Severity.SERIOUS,
        f"The second moment lagged behind the gradient from step {run.step[row]:,} on{where}, and "
        f"{counted(int(run.step[spiked] - run.step[row]), 'step')} later the loss spiked{known}.",
        (
            Evidence("RMS_t before it, over its usual value", peak, ">=", _LAGS_AT_LEAST),
            Evidence("loss after it, over its usual value", height, ">", LOSS_SPIKE),
            Evidence(
                "loss when it began, over its usual value", float(losses[row]), "<=", _LOSS_CALM
            ),
        ),
        ("Lower b2, to 0.95 or 0.98. " if lower else "b2 is low already: lower the learning rate. ")
        + "gs.stable_adamw shortens the step by as much as the moment lags; a larger eps (1e-6) "
        "helps where gradients have become tiny.",
    )


def _at_the_end(run: Run) -> tuple[str, tuple[Evidence, ...]] | None:
    evidence = (
        Evidence("median update ratio of the second half", late_ratio(run), ">", RATIO_TOO_HIGH),
    )
    back = returns_of(run)
    long = len(run.step) >= _LONG_ENOUGH and not (back is not None and back.paused)
    if not all_hold(evidence) or not long or broken_since(run) < len(run.step):
        return None
    return f"updates stay at {late_ratio(run):.2g} of the parameters to the end", evidence


def _at_first(run: Run) -> tuple[str, tuple[Evidence, ...]] | None:
    start = early(run)
    ratios = run.update_ratio[: start + 1]
    ratio = median(ratios[ratios > 0])
    first, peak = first_loss(run), largest(run.loss[:start][usual_kind(run)[:start]])
    evidence = (
        Evidence(f"median update ratio of the first {start} steps", ratio, ">", _RATIO_WRECKS),
        # Parameters that start at 0 have such a ratio too, but their loss does not rise.
        Evidence("largest loss of these steps over the first", over(peak, first), ">", LOSS_SPIKE),
        Evidence(
            "loss of the last quarter over the first",
            over(last_loss(run), first),
            ">",
            LEARNED,
        ),
    )
    if not all_hold(evidence):
        return None
    return (
        f"the first updates were {ratio:.2g} of the parameters, and the run never learned",
        evidence,
    )


def _before_it_broke(run: Run) -> tuple[str, tuple[Evidence, ...]] | None:
    until = broken_since(run)
    if until in (0, len(run.step)) or not run.has_loss:
        return None
    ratio = median(run.update_ratio[max(until - HISTORY, 0) : until])
    last = float(run.loss[until - 1])
    rises = [over(last, one) for one in (run.loss[max(until - _LAST, 0)], first_loss(run))]
    rise = largest(np.array(rises))
    evidence = (
        Evidence(
            "median update ratio of the 32 steps before the run broke", ratio, ">", RATIO_ALARM
        ),
        Evidence("rise of the loss until then", rise, ">=", _RISES),
    )
    if not all_hold(evidence):
        return None
    return f"the loss rose by a factor of {rise:.3g} before the run broke", evidence


def _worst_lag(run: Run, began: np.ndarray) -> tuple[int, int, float, float] | None:
    """Return the start of the lag that led to the highest loss, its spike, and both peaks."""
    rows = began[:, np.newaxis] + np.arange(_AHEAD + 1)
    inside = rows < len(run.step)
    rows = np.where(inside, rows, 0)
    inside &= usual_kind(run)[rows]
    losses, lags = (np.where(inside, values[rows], np.nan) for values in (run.loss, run.rms))
    with np.errstate(invalid="ignore", over="ignore"):
        spikes = losses > LOSS_SPIKE * usual(run.loss)[began, np.newaxis]
        spikes[:, 0] = False
        calm = np.cumsum(spikes, axis=1) == 0
        peaks = row_largest(np.where(calm, lags, np.nan)) / usual(run.rms)[began]
        heights = row_largest(losses[:, 1:]) / usual(run.loss)[began]
        led = np.flatnonzero(spikes.any(axis=1) & (peaks >= _LAGS_AT_LEAST))
        if not led.size:
            return None
        # A loss that became infinite immediately has no finite height.
        heights = np.where(np.isnan(heights), np.inf, heights)[led]
        best = led[np.argmax(heights)]
    row = int(began[best])
    return row, row + int(np.argmax(spikes[best])), float(peaks[best]), float(heights.max())


def _least(rows: np.ndarray) -> np.ndarray:
    return np.fmin.reduce(rows, axis=1)
