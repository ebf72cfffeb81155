"""Measures: turn curves and final losses into numbers for the tables.

Everywhere, a loss that is infinite or NaN counts as infinitely large, also in medians.
"""

import math
from typing import NamedTuple

import numpy as np

from gradstable_gauntlet.results import Cell, Fate, Results

CLEAN = "none"  # the absence of a storm
TOLERANCE = 1.1
_SMOOTH, _HOLD = 15, 10
_LEAST_VALUES = 100  # before a deviation is called a spike
_ROUNDING = 1e-9  # relative: deviations this small do not count
_LARGEST = 1e100  # its squares can be summed


class Stable(NamedTuple):
    """The learning rates around the best one at which the loss is almost as good."""

    low: float  # NaN if no rate gives a finite loss
    high: float
    open_low: bool  # whether the range of the rates ends before the stable range does
    open_high: bool

    @property
    def decades(self) -> float:
        """The width: 0 if at most one rate is stable."""
        return 0.0 if math.isnan(self.low) else math.log10(self.high / self.low)


def bad_as_inf(values: np.ndarray) -> np.ndarray:
    """Return the values with every non-finite one replaced by infinity."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def middle(values: np.ndarray) -> float:
    """Return the median, where non-finite values count as infinity; NaN if there are none."""
    values = np.asarray(values, np.float64)
    return float(np.median(bad_as_inf(values))) if values.size else math.nan


def clean_loss(cell: Cell) -> float:
    """Return the final loss in calm weather at the tuned rate, median over seeds."""
    return middle(cell.fates[CLEAN].final) if CLEAN in cell.fates else math.nan


def bar(results: Results, cell: Cell, *, own: bool = False) -> np.ndarray:
    """Return the clean losses that define survival, one for each seed.

    They are those of the contestant that does best in this task among all with the same base, the
    base included: measured by its own clean losses, a contestant that learns less in calm weather
    would have a lower bar to clear in a storm.

    Each is the larger of the median over seeds and the loss of the same seed: a seed with a bad
    start, for example in a game of two players, was not harmed by a storm.

    Args:
      results: the results that contain ``cell``.
      cell: a contestant in a task.
      own: whether to use its own clean losses instead: has a storm harmed what it learns?

    Returns:
      ``[seeds]``; NaN if there are none.
    """
    reference = cell
    if not own:
        base = results.contestants[cell.contestant]["base"]
        same = [
            other
            for other in results.cells
            if other.task == cell.task and results.contestants[other.contestant]["base"] == base
        ]
        reference = min(same, key=lambda other: bad_as_inf(np.array(clean_loss(other))))
    median = clean_loss(reference)
    if not math.isfinite(median):
        return np.full(1, math.nan)
    each = np.asarray(reference.fates[CLEAN].final, np.float64)
    return np.where(np.isfinite(each), np.fmax(each, median), median)


def survived(fate: Fate, clean: np.ndarray | float) -> np.ndarray:
    """Return for each seed whether the run survived.

    It did if parameters and final loss are finite and the final loss is at most 1.1 times
    ``clean``, which comes from ``bar``. If ``clean`` is not finite, nothing survives.
    """
    final = np.asarray(fate.final, np.float64)
    limit = np.where(np.isfinite(clean), clean, -np.inf)
    return np.asarray(fate.finite, bool) & np.isfinite(final) & (final <= TOLERANCE * limit)


def ratios(fate: Fate, clean: Fate) -> np.ndarray:
    """Return the final loss of each seed over that of its own clean run.

    Infinite where the run blew up; NaN where the clean run did, or its loss is zero.
    """
    top, bottom = bad_as_inf(fate.final), np.asarray(clean.final, np.float64)
    known = np.isfinite(bottom) & (bottom > 0)
    return np.where(known, top / np.where(known, bottom, 1.0), np.nan)


def rate_sensitivity(
    losses: np.ndarray, start: float, *, upper: bool = False, relative: bool = False
) -> float:
    """Return the learning rate sensitivity: mean over rates of ``min(l(rate), l0) - l*``.

    From Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training
    instabilities", arXiv 2309.14322. ``l0`` is the loss at the start, ``l*`` the smallest loss over
    all rates; a non-finite loss counts as ``l0``.

    Args:
      losses: ``[rates]`` or ``[rates, seeds]``, at ascending rates; the median is taken over seeds.
      start: ``l0``.
      upper: whether to average only over the upper half of the rates (with the middle one of an odd
        number). ``l*`` stays the smallest over all rates; otherwise a contestant that is bad at all
        of them would look good.
      relative: whether to divide by ``l0 - l*``, for means over tasks. 0 means that all rates are
        as good as the best, 1 that only the best learns anything.

    Returns:
      The sensitivity; NaN if no rate gets below ``l0``, so that nothing was learned at any rate.
    """
    values = over_seeds(losses)
    capped = np.minimum(values, start)
    least = float(values.min(initial=np.inf))
    if not (math.isfinite(start) and least < start):
        return math.nan
    part = capped[len(capped) // 2 :] if upper else capped
    excess = float(np.mean(part) - least)
    return excess / (start - least) if relative else excess


def stable_range(rates: np.ndarray, losses: np.ndarray) -> Stable:
    """Return the range of rates around the best whose loss is at most 1.1 times the smallest.

    It is contiguous. If the loss of the next rate is finite, the edge is where the line between the
    two losses, on logarithmic axes, crosses 1.1 times the smallest; otherwise it is the last good
    rate.

    Args:
      rates: ``[rates]``, ascending.
      losses: ``[rates]`` or ``[rates, seeds]``; the median is taken over seeds.
    """
    values = over_seeds(losses)
    if not np.isfinite(values).any():
        return Stable(math.nan, math.nan, open_low=False, open_high=False)
    x = np.log(np.asarray(rates, np.float64))
    best = int(np.argmin(values))
    limit = TOLERANCE * values[best]
    low, open_low = _edge(x, values, limit, best, step=-1)
    high, open_high = _edge(x, values, limit, best, step=1)
    return Stable(math.exp(low), math.exp(high), open_low=open_low, open_high=open_high)


def _edge(
    x: np.ndarray, values: np.ndarray, limit: float, place: int, *, step: int
) -> tuple[float, bool]:
    while 0 <= place + step < len(x) and values[place + step] <= limit:
        place += step
    beyond = place + step
    if not 0 <= beyond < len(x):
        return float(x[place]), True
    inner, outer = values[place], values[beyond]
    if not math.isfinite(outer) or inner <= 0:
        return float(x[place]), False
    part = math.log(limit / inner) / math.log(outer / inner)
    return float(x[place] + part * (x[beyond] - x[place])), False


def over_seeds(losses: np.ndarray) -> np.ndarray:
    """Return the medians over seeds of losses ``[rates]`` or ``[rates, seeds]``."""
    losses = bad_as_inf(losses)
    return np.median(losses, axis=1) if losses.ndim == 2 else losses


def spike_score(values: np.ndarray, window: int = 1000, sigmas: float = 7.0) -> np.ndarray:
    """Return the percentage of values that are spikes.

    As in "2 OLMo 2 Furious", arXiv 2501.00656: values at least seven standard deviations away from
    the mean of the last 1,000 values. Those are the values before it, as many as there are; until
    there are 100, nothing is a spike. A non-finite value always is one, and never enters a mean.

    Args:
      values: ``[..., steps]``.
      window: the largest number of values in the mean.
      sigmas: the number of standard deviations.

    Returns:
      ``[...]``, from 0 to 100.
    """
    values = np.asarray(values, np.float64)
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    good = np.isfinite(values)
    known = np.clip(np.where(good, values, 0.0), -_LARGEST, _LARGEST)
    # Centered, or squaring would lose small deviations of large numbers.
    centered = np.where(good, known - _centers(known, good), 0.0)
    number = _trailing_sum(good.astype(np.float64), window)
    least = np.maximum(number, 1.0)
    mean = _trailing_sum(centered, window) / least
    variance = np.maximum(_trailing_sum(centered**2, window) / least - mean**2, 0.0)
    away = np.abs(centered - mean)
    far = (away >= sigmas * np.sqrt(variance)) & (away > _ROUNDING * np.abs(known))
    return 100.0 * np.mean(~good | (far & (number >= _LEAST_VALUES)), axis=-1)


def _centers(known: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return a middle value of the finite ones, 0 if there are none."""
    ordered = np.sort(np.where(good, known, np.inf), axis=-1)
    place = good.sum(axis=-1, keepdims=True) // 2
    found = np.take_along_axis(ordered, np.minimum(place, known.shape[-1] - 1), axis=-1)
    return np.where(np.isfinite(found), found, 0.0)


def _trailing_sum(values: np.ndarray, window: int) -> np.ndarray:
    """Return the sums of the ``window`` values before each, without subtraction.

    With differences of cumulative sums, one huge value would spoil all later sums. Here each sum
    combines the end of one block with the beginning of the next.
    """
    steps = values.shape[-1]
    blocks = -(-steps // window) + 1
    front = [(0, 0)] * (values.ndim - 1)
    padded = np.pad(values, [*front, (window, blocks * window - window - steps)])
    parts = padded.reshape(*values.shape[:-1], blocks, window)
    begins = np.cumsum(parts, axis=-1).reshape(padded.shape)
    ends = np.cumsum(parts[..., ::-1], axis=-1)[..., ::-1].reshape(padded.shape)
    # The sum of positions t .. t + window - 1 of the padded values: those before step t.
    place = np.arange(steps)
    whole = place % window == 0
    return np.where(whole, 0.0, begins[..., place + window - 1]) + ends[..., place]


def smooth(values: np.ndarray, window: int = _SMOOTH) -> np.ndarray:
    """Return the running median of the last ``window`` values, of fewer at the start.

    Args:
      values: ``[..., steps]``; non-finite values count as infinitely large.
      window: an odd number, so that each median is one of the values.
    """
    values = bad_as_inf(values)
    steps = values.shape[-1]
    head = [np.median(values[..., : t + 1], axis=-1) for t in range(min(window - 1, steps))]
    parts = [np.stack(head, axis=-1)] if head else []
    if steps >= window:
        view = np.lib.stride_tricks.sliding_window_view(values, window, axis=-1)
        parts.append(np.median(view, axis=-1))
    return np.concatenate(parts, axis=-1) if parts else values


def steps_lost(curve: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return how many steps of the clean run were lost.

    This is the number of steps at the end of the clean run in which its training loss was below the
    final one of ``curve``, both smoothed by ``smooth``: 0 if the run ends as low as the clean one,
    all steps if it ends higher than the clean one ever was, or is not finite.

    Args:
      curve: ``[..., steps]``, training losses.
      clean: the same for the clean run of the same seed.
    """
    last, calm = smooth(curve)[..., -1:], smooth(clean)
    steps = calm.shape[-1]
    not_below = calm >= last
    after = np.argmax(not_below[..., ::-1], axis=-1)
    lost = np.where(not_below.any(axis=-1), after, steps)
    return np.where(np.isfinite(last[..., 0]), lost, steps)


def steps_to_recover(curve: np.ndarray, clean: np.ndarray, last_fault: int) -> np.ndarray:
    """Return how long after the last fault the loss is back at that of the clean run.

    Back is the first step from which the training loss is within 1.1 times that of the clean run
    for ten steps on end, both smoothed by ``smooth``.

    Args:
      curve: ``[..., steps]``, training losses.
      clean: the same for the clean run of the same seed.
      last_fault: index of the last step that was disturbed.

    Returns:
      Steps since ``last_fault``, 1 at least; infinite if it never is.
    """
    run, calm = smooth(curve)[..., last_fault + 1 :], smooth(clean)[..., last_fault + 1 :]
    near = np.isfinite(run) & np.isfinite(calm) & (run <= TOLERANCE * calm)
    if near.shape[-1] < _HOLD:
        return np.full(near.shape[:-1], np.inf)
    held = np.lib.stride_tricks.sliding_window_view(near, _HOLD, axis=-1).all(axis=-1)
    return np.where(held.any(axis=-1), np.argmax(held, axis=-1) + 1.0, np.inf)


def false_interventions(cell: Cell) -> float:
    """Return the share of steps clipped or rejected in calm weather; NaN: unknown."""
    touched = cell.fates[CLEAN].touched if CLEAN in cell.fates else np.array([])
    known = touched[np.isfinite(touched)]
    return float(np.mean(known)) if known.size else math.nan
