"""Measurements shared by all rules: multiples of usual values, and where trouble is."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from gradstable._src.core.numerics import SIGMA_PER_MAD
from gradstable._src.doctor.order import medians_before
from gradstable._src.telemetry.patterns import around_steady
from gradstable._src.telemetry.run import Run

# A half or a quarter of fewer steps is too little for a median, or for any judgment.
ENOUGH = 20
# The usual value at a step is the median of HISTORY steps before it, of which LEAST_HISTORY must be
# known.
HISTORY, LEAST_HISTORY = 32, 8
# A gradient has exploded at this multiple of its usual norm, as in gs.telemetry.blame.
NORM_SPIKE = 10.0
# Up to this multiple a gradient is not unusual; the guard's default rule starts to clip there for
# log norms that scatter by 0.3 (exp(3 * 0.3) is 2.5).
NORM_USUAL = 3.0
# A loss spikes at this multiple of its usual value: llm-foundry's KillLossSpike.
LOSS_SPIKE = 2.0
# RMS_t lags at this multiple of its usual value: gs.record's limit, after Wortsman et al.
RMS_LAGS = 2.3
# The update ratio is unusual at this multiple of its usual value: gs.record's limit.
RATIO_JUMP = 4.0
# The least spread counted as noise.
_LEAST_SPREAD = 0.05
# Rows of a sliding window that are sorted in one go: 16 MB.
_CHUNK = 65_536


# Results computed from the columns of the current run, by name and array. The array is kept too, so
# that its id stays valid.
_known: ContextVar[dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] | None]
_known = ContextVar("known", default=None)


class Stretches(NamedTuple):
    """Stretches of consecutive rows, in order."""

    first: np.ndarray  # int64 [k]
    end: np.ndarray  # int64 [k], the row after the last

    def any(self, rows: np.ndarray) -> np.ndarray:
        """Return which stretches contain a true row (bool ``[k]``)."""
        return self.count(rows) > 0

    def all(self, rows: np.ndarray) -> np.ndarray:
        """Return which stretches have only true rows (bool ``[k]``)."""
        return self.count(rows) == self.end - self.first

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Return how many rows of each stretch are true (int64 ``[k]``)."""
        before = np.concatenate([[0], np.cumsum(rows)])
        return before[self.end] - before[self.first]


@contextmanager
def remembering() -> Generator[None]:
    """Cache what several rules compute from a column; columns must not change meanwhile."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def usual(values: np.ndarray) -> np.ndarray:
    """Return the median of the ``HISTORY`` known, positive values before each row.

    NaN where fewer than ``LEAST_HISTORY`` of them are known, positive and finite, or where any is
    negative: multiples are meaningless for values that can be negative, such as log-likelihoods.
    """
    return np.exp(_centers(values))


def sigmas(values: np.ndarray) -> np.ndarray:
    """Return how many robust standard deviations the log of a value is above its usual one.

    A robust standard deviation is 1.4826 times the median absolute deviation of the values used in
    ``usual``, which counts as at least 0.05.
    """
    deviation = np.maximum(_deviations(values), _LEAST_SPREAD)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(values) - _centers(values)) / (SIGMA_PER_MAD * deviation)


def multiple(values: np.ndarray) -> np.ndarray:
    """Return each value as a multiple of its usual one; NaN where either is unknown."""
    with np.errstate(invalid="ignore", over="ignore"):
        return values / usual(values)


def loss_broken(run: Run) -> np.ndarray:
    """Return which steps had a loss that is not finite (bool ``[n]``)."""
    return ~np.isfinite(run.loss) if run.has_loss else np.zeros(len(run.step), bool)


def gradient_broken(run: Run) -> np.ndarray:
    """Return which steps had a gradient that is not finite (bool ``[n]``)."""
    known = "grad_norm" in run.known
    return ~np.isfinite(run.grad_norm) if known else np.zeros(len(run.step), bool)


def usual_kind(run: Run) -> np.ndarray:
    """Return which steps do not belong to a minority (bool ``[n]``).

    A minority are clipped and rejected steps near a steady share of large norms. Their loss is that
    of another task or of broken data, and says nothing about the others.
    """
    return ~(around_steady(run) & (run.scale < 1))


def broken_since(run: Run) -> int:
    """Return the row from which all steps are broken and applied to the end; ``n`` if none."""
    bad = (loss_broken(run) | gradient_broken(run)) & ~run.rejected
    if not bad.any() or run.rejected[-1]:
        return len(bad)
    good = np.flatnonzero(~bad & ~run.rejected)
    since = int(good[-1]) + 1 if good.size else 0
    return since + int(np.argmax(bad[since:])) if bad[since:].any() else len(bad)


def sudden(run: Run, row: int) -> bool:
    """Return whether a row came without warning in the step before; see ``which_sudden``."""
    return bool(which_sudden(run, np.array([row]))[0])


def which_sudden(run: Run, rows: np.ndarray) -> np.ndarray:
    """Return which rows came without warning in the step before; unknown counts as no.

    A warning is a loss or gradient norm above ``NORM_SPIKE`` times its usual value, or times its
    median of all steps before, since a value that grows by a tenth in each step is never far above
    the last 32; or a gradient that was broken and applied. Nothing precedes the first step.
    """
    before = np.maximum(rows - 1, 0)
    follows = (rows > 0) & (run.step[before] == run.step[rows] - 1)
    harmed = gradient_broken(run)[before] & ~run.rejected[before]
    return np.where(follows, ~(harmed | _grown(run, before)), run.step[rows] == 1)


def episodes(run: Run) -> Stretches:
    """Return the stretches of rejected, broken and exploded steps."""
    with np.errstate(invalid="ignore"):
        exploded = multiple(run.grad_norm) > NORM_SPIKE
    return stretches(run.rejected | gradient_broken(run) | loss_broken(run) | exploded)


def stretches(bad: np.ndarray) -> Stretches:
    """Return the stretches of consecutive true rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(np.int8), [0]])))
    return Stretches(edges[::2], edges[1::2])


def ahead(
    values: np.ndarray, rows: np.ndarray, number: int, find: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Apply ``find`` to the values from each row on.

    It receives ``[k, number]`` with NaN beyond the end, for a part of the rows at a time, and
    returns ``[k]``.
    """
    longer = np.concatenate([values, np.full(number, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(longer, number)
    parts = [find(windows[rows[at : at + _CHUNK]]) for at in range(0, len(rows), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0)


def row_medians(rows: np.ndarray) -> np.ndarray:
    """Return the median of the finite numbers of each row, NaN if there are none."""
    finite = np.isfinite(rows)
    return _medians(np.where(finite, rows, np.nan), finite.sum(axis=1), least=1)


def row_largest(rows: np.ndarray) -> np.ndarray:
    """Return the largest of the finite numbers of each row, NaN if there are none."""
    return np.fmax.reduce(np.where(np.isfinite(rows), rows, np.nan), axis=1)


def trailing(bad: np.ndarray) -> int:
    """Return how many consecutive rows are true at the end."""
    good = np.flatnonzero(~bad)
    return len(bad) - (int(good[-1]) + 1 if good.size else 0)


def median(values: np.ndarray) -> float:
    """Return the median of the finite values, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def over(value: float, other: float) -> float:
    """Return a quotient, NaN if it is meaningless because the other is not positive."""
    return value / other if other > 0 else float("nan")


def largest(values: np.ndarray) -> float:
    """Return the largest of the finite values, NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else float("nan")


def first_loss(run: Run) -> float:
    """Return the first loss of the run, NaN if its start is not recorded."""
    begun = run.has_loss and len(run.step) > 0 and run.step[0] == 1
    return float(run.loss[0]) if begun else float("nan")


def last_loss(run: Run) -> float:
    """Return the median loss of the accepted steps of the last quarter, NaN if none is finite."""
    last = slice(-max(len(run.step) // 4, 1), None)
    accepted = run.loss[last][~run.rejected[last]]
    return median(accepted) if run.has_loss else float("nan")


def setting(run: Run, name: str) -> float:
    """Return a number from the config, NaN if it is missing or not a number."""
    try:
        return float(run.config[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        return float("nan")


def _grown(run: Run, rows: np.ndarray) -> np.ndarray:
    """Return which rows have a loss or norm far above the earlier ones (bool ``[k]``)."""
    grown = np.zeros(len(rows), bool)
    for values in (run.loss, run.grad_norm):
        before = medians_before(values, rows)
        with np.errstate(invalid="ignore", over="ignore"):
            grown |= values[rows] > NORM_SPIKE * usual(values)[rows]
            grown |= (before > 0) & (values[rows] > NORM_SPIKE * before)
    return grown


def _centers(values: np.ndarray) -> np.ndarray:
    """Return the median of the logs before each row."""

    def find() -> np.ndarray:
        logs = _logs(values)
        windows, known = _windows(logs), _in_windows(~np.isnan(logs))
        center = np.empty(len(values))
        for start in range(0, len(values), _CHUNK):
            here = slice(start, start + _CHUNK)
            center[here] = _medians(windows[here], known[here], least=LEAST_HISTORY)
        # Multiples are meaningless for values that can be negative.
        center[_in_windows(values < 0) > 0] = np.nan
        return center

    return _once("center", values, find)


def _deviations(values: np.ndarray) -> np.ndarray:
    """Return the median absolute deviation of the logs before each row."""

    def find() -> np.ndarray:
        logs, center = _logs(values), _centers(values)
        windows, known = _windows(logs), _in_windows(~np.isnan(logs))
        known[np.isnan(center)] = 0
        deviation = np.empty(len(values))
        for start in range(0, len(values), _CHUNK):
            here = slice(start, start + _CHUNK)
            away = np.abs(windows[here] - center[here, np.newaxis])
            deviation[here] = _medians(away, known[here], least=LEAST_HISTORY)
        return deviation

    return _once("deviation", values, find)


def _medians(rows: np.ndarray, known: np.ndarray, *, least: int) -> np.ndarray:
    """Return the median of each row, given how many of its numbers are not NaN."""
    ordered = np.sort(rows, axis=1)  # NaN goes to the end
    at = np.arange(len(rows))
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, rows.shape[1] - 1)
    with np.errstate(over="ignore"):
        middle = (ordered[at, low] + ordered[at, high]) / 2
    return np.where(known >= least, middle, np.nan)


def _once(name: str, values: np.ndarray, find: Callable[[], np.ndarray]) -> np.ndarray:
    known = _known.get()
    if known is None:
        return find()
    key = (name, id(values))
    if key not in known:
        known[key] = (values, find())
    return known[key][1]


def _logs(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan)


def _windows(values: np.ndarray) -> np.ndarray:
    """Return the ``HISTORY`` values before each row, NaN before the first."""
    longer = np.concatenate([np.full(HISTORY, np.nan), values])
    return np.lib.stride_tricks.sliding_window_view(longer, HISTORY)[: len(values)]


def _in_windows(rows: np.ndarray) -> np.ndarray:
    """Return how many of the ``HISTORY`` rows before each are true."""
    before = np.concatenate([np.zeros(HISTORY + 1, np.int64), np.cumsum(rows)])
    return before[HISTORY : HISTORY + len(rows)] - before[: len(rows)]
