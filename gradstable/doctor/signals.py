"""What all rules measure alike: how much a number is of its usual value, and where trouble is."""

from typing import NamedTuple

import numpy as np

from gradstable.telemetry.run import Run

# A half or a quarter of fewer steps is too little for a median, or for a judgment at all.
ENOUGH = 20
# The usual value of a step is the median of this many before it, if there are so many at least.
HISTORY, LEAST_HISTORY = 32, 8
# A gradient has exploded at this multiple of its usual norm: as in gs.telemetry.blame.
NORM_SPIKE = 10.0
# A gradient is not unusual up to this multiple; the default rule of the guard begins to clip there,
# for log norms that scatter by 0.3 (exp(3 * 0.3) is 2.5).
NORM_USUAL = 3.0
# A loss spikes at this multiple of its usual value: llm-foundry's KillLossSpike.
LOSS_SPIKE = 2.0
# RMS_t lags at this multiple of its usual value: gs.record's limit, after Wortsman et al.
RMS_LAGS = 2.3
# The update ratio is unusual at this multiple of its usual value: gs.record's limit.
RATIO_JUMP = 4.0
# Takes a median absolute deviation to a standard deviation; and the least that counts as noise.
_SIGMA_PER_MAD, _LEAST_SPREAD = 1.4826, 0.05
# Rows of a sliding window that are sorted at once: 16 MB.
_CHUNK = 65_536


class Episode(NamedTuple):
    """Consecutive bad steps; both are indices of rows."""

    first: int
    end: int  # the row after the last


def usual(values: np.ndarray) -> np.ndarray:
    """Return the median of the ``HISTORY`` known, positive values before each row.

    NaN where fewer than ``LEAST_HISTORY`` of them are known, positive and finite, or where any is
    negative: of what may be negative, as a log-likelihood, no multiple means anything.
    """
    return np.exp(_history(values)[0])


def sigmas(values: np.ndarray) -> np.ndarray:
    """Return how many robust standard deviations the log of a value is above its usual one.

    One of them is 1.4826 times the median absolute deviation of the same values as in ``usual``,
    and 0.05 at least.
    """
    center, deviation = _history(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(values) - center) / (_SIGMA_PER_MAD * np.maximum(deviation, _LEAST_SPREAD))


def multiple(values: np.ndarray) -> np.ndarray:
    """Return each value as a multiple of its usual one; NaN where either is not known."""
    with np.errstate(invalid="ignore", over="ignore"):
        return values / usual(values)


def loss_broken(run: Run) -> np.ndarray:
    """Return which steps had a loss that is not finite (bool ``[n]``)."""
    return ~np.isfinite(run.loss) if run.has_loss else np.zeros(len(run.step), bool)


def gradient_broken(run: Run) -> np.ndarray:
    """Return which steps had a gradient that is not finite (bool ``[n]``)."""
    known = "grad_norm" in run.known
    return ~np.isfinite(run.grad_norm) if known else np.zeros(len(run.step), bool)


def broken_since(run: Run) -> int:
    """Return the row from which on all is broken, and applied, to the end; ``n`` if it is not."""
    bad = (loss_broken(run) | gradient_broken(run)) & ~run.rejected
    if not bad.any() or run.rejected[-1]:
        return len(bad)
    good = np.flatnonzero(~bad & ~run.rejected)
    since = int(good[-1]) + 1 if good.size else 0
    return since + int(np.argmax(bad[since:])) if bad[since:].any() else len(bad)


def sudden(run: Run, row: int) -> bool:
    """Return whether nothing in the step before announced a row; not known is no.

    What would: a loss or gradient norm above ``NORM_SPIKE`` times its usual value, or times its
    median of all steps before, since what grows by a tenth in each step is never far above the
    last 32; or a gradient that was broken and applied. Before the first step there is nothing.
    """
    if not row or run.step[row - 1] != run.step[row] - 1:
        return run.step[row] == 1
    before = row - 1
    harmed = gradient_broken(run)[before] and not run.rejected[before]
    return not (harmed or _grown(run, before))


def episodes(run: Run) -> list[Episode]:
    """Return the stretches of rejected, broken and exploded steps."""
    with np.errstate(invalid="ignore"):
        exploded = multiple(run.grad_norm) > NORM_SPIKE
    return stretches(run.rejected | gradient_broken(run) | loss_broken(run) | exploded)


def stretches(bad: np.ndarray) -> list[Episode]:
    """Return the stretches of consecutive true rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(np.int8), [0]])))
    return [Episode(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def trailing(bad: np.ndarray) -> int:
    """Return how many rows are true in a row at the end."""
    good = np.flatnonzero(~bad)
    return len(bad) - (int(good[-1]) + 1 if good.size else 0)


def median(values: np.ndarray) -> float:
    """Return the median of the finite values, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def over(value: float, other: float) -> float:
    """Return a quotient, NaN where it means nothing: the other is not positive."""
    return value / other if other > 0 else float("nan")


def largest(values: np.ndarray) -> float:
    """Return the largest of the finite values, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else float("nan")


def first_loss(run: Run) -> float:
    """Return the loss that the run began with, NaN if its beginning is not recorded."""
    begun = run.has_loss and len(run.step) > 0 and run.step[0] == 1
    return float(run.loss[0]) if begun else float("nan")


def last_loss(run: Run) -> float:
    """Return the median loss of the accepted steps of the last quarter, NaN if none is finite."""
    last = slice(-max(len(run.step) // 4, 1), None)
    accepted = run.loss[last][~run.rejected[last]]
    return median(accepted) if run.has_loss else float("nan")


def setting(run: Run, name: str) -> float:
    """Return a number of the config, NaN if it is not there or no number."""
    try:
        return float(run.config[name])
    except (KeyError, TypeError, ValueError):
        return float("nan")


def _grown(run: Run, row: int) -> bool:
    """Return whether loss or norm of a row are far above what they were before."""
    for values in (run.loss, run.grad_norm):
        usual_now = float(usual(values[max(row - HISTORY, 0) : row + 1])[-1])
        before = median(values[:row])
        limits = NORM_SPIKE * np.array([usual_now, before if before > 0 else np.nan])
        if (values[row] > limits).any():
            return True
    return False


def _history(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and median absolute deviation of the logs before each row."""
    logs = np.full(len(values) + HISTORY, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs[HISTORY:] = np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(logs, HISTORY)[: len(values)]
    center, deviation = np.full((2, len(values)), np.nan)
    for start in range(0, len(values), _CHUNK):
        here = slice(start, start + _CHUNK)
        center[here] = _row_medians(windows[here])
        deviation[here] = _row_medians(np.abs(windows[here] - center[here, np.newaxis]))
    negative = np.zeros(len(values) + HISTORY, bool)
    negative[HISTORY:] = values < 0
    signed = np.lib.stride_tricks.sliding_window_view(negative, HISTORY)[: len(values)].any(axis=1)
    center[signed] = deviation[signed] = np.nan
    return center, deviation


def _row_medians(rows: np.ndarray) -> np.ndarray:
    """Return the median of the known numbers of each row, NaN where they are too few."""
    ordered = np.sort(rows, axis=1)  # NaN goes to the end
    known = np.isfinite(ordered).sum(axis=1)
    at = np.arange(len(rows))
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, HISTORY - 1)
    middle = (ordered[at, low] + ordered[at, high]) / 2
    return np.where(known >= LEAST_HISTORY, middle, np.nan)
