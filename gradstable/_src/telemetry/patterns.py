"""How often steps were rejected or let in at the usual size, and in which pattern.

A step is *touched* here if it was rejected, or clipped because its norm keeps coming back. The
patterns, for each cause:

- *a steady share*: five separate times or more within 500 steps, so that it is 1 % or more;
- *a burst*: ten touched steps in a row, or four or more that are no part of a steady share, with
  gaps of at most three;
- *isolated* steps: the rest.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstable._src.core.reasons import LET_IN, Reason, sentence
from gradstable._src.telemetry.run import Run

# Five times in 500 steps are 1 %, from which gs.check warns as well; one in a hundred at random is
# never 500 steps apart.
LEAST_TIMES, _WITHIN = 5, 500
# Touched steps closer than this belong together, since a rollback in a burst leaves a gap. A burst
# has more steps than the few bad batches in a row that the doctor calls isolated. Of a minority of
# a third, ten in a row are one in 59,000: these are a burst, however often it comes back.
GAP, LEAST_BURST, _IN_A_ROW = 4, 4, 10
# A share that lasts to the end is that of this many steps, as in gs.check. One that begins shortly
# after the first of them is that of all of them.
MOST_RECENT, _SHORTLY = 1_000, 100
# The usual norm is the median of the untouched steps before: the last 32, and at least 8.
_HISTORY, _LEAST_HISTORY = 32, 8
# Different words for one thing: a norm far above the usual one.
_FAR = (Reason.SPIKE_REJECTED, Reason.HISTORY_REJECTED, Reason.RECURRING_CLIPPED)


class Judged(NamedTuple):
    """What was decided on some recorded steps, in order."""

    step: np.ndarray  # int64 [n]
    grad_norm: np.ndarray  # float64 [n]
    scale: np.ndarray  # float64 [n]
    reason: np.ndarray  # int64 [n]
    worst_leaf: np.ndarray  # int64 [n], -1: unknown


class Shape(enum.IntEnum):
    """How touched steps are spread."""

    STEADY = 0
    BURST = 1
    ISOLATED = 2


class Pattern(NamedTuple):
    """Touched steps that belong together.

    Attributes:
      shape: how they are spread.
      reason: why they were touched; all codes for a far norm are ``SPIKE_REJECTED``.
      rows: int64 ``[k]``, their rows in the record.
      times: how often they occurred, where a run of steps counts once.
      of_steps: for a steady share, the number of recorded steps that it is a share of.
      first: the first step of these.
      last: the last one.
      lasts: whether a steady share goes on at the end of the record.
      rejected: how many of the touched steps were rejected; the others were let in.
      level: median of their norms, in multiples of the usual norm; NaN if unknown.
      leaf: the leaf that was worst most often, -1 if unknown.
    """

    shape: Shape
    reason: int
    rows: np.ndarray
    times: int
    of_steps: int
    first: int
    last: int
    lasts: bool
    rejected: int
    level: float
    leaf: int

    @property
    def far(self) -> bool:
        """Whether the steps had a norm far above the usual one."""
        return self.reason == Reason.SPIKE_REJECTED

    @property
    def let_in(self) -> int:
        """How many of the steps were clipped to the usual size."""
        return len(self.rows) - self.rejected

    @property
    def meaning(self) -> str:
        """What a steady share can mean."""
        if not self.far:
            return "bad batches, or a limit that is too strict"
        learned = "learned at clipped size" if self.let_in else "never learned"
        return f"a task or a kind of batch that is {learned}, or a broken reader"

    @property
    def share(self) -> float:
        """The touched steps as a share of all."""
        return len(self.rows) / self.of_steps


def patterns_of(run: Run) -> tuple[Pattern, ...]:
    """Return the patterns of a recorded run; a steady share comes first."""
    return patterns(Judged(run.step, run.grad_norm, run.scale, run.reason, run.worst_leaf))


def around_steady(run: Run) -> np.ndarray:
    """Return which steps are in or near a steady share of far norms (bool ``[n]``).

    Others of its kind are near, which a rule did not reject but clip to its limit.
    """
    rows = np.zeros(len(run.step), bool)
    for one in patterns_of(run):
        if one.shape == Shape.STEADY and one.far:
            rows[max(one.rows[0] - _WITHIN, 0) : one.rows[-1] + _WITHIN] = True
    return rows


def in_bursts(run: Run) -> np.ndarray:
    """Return which steps are touched and belong to a burst (bool ``[n]``)."""
    rows = np.zeros(len(run.step), bool)
    for one in patterns_of(run):
        rows[one.rows] |= one.shape == Shape.BURST
    return rows


@np.errstate(all="ignore")  # it is meant for wild numbers
def patterns(steps: Judged) -> tuple[Pattern, ...]:
    """Return the patterns of some steps; a steady share comes first."""
    touched = touched_steps(steps)
    cause = causes(steps.reason)
    found: list[Pattern] = []
    for reason in np.unique(cause[touched]).tolist():
        rows = np.flatnonzero(touched & (cause == reason))
        for shape, parts in _shapes(rows):
            found += [_pattern(steps, touched, shape, reason, part) for part in parts]
    return tuple(sorted(found, key=lambda one: (one.shape, -len(one.rows))))


def causes(reasons: np.ndarray) -> np.ndarray:
    """Return reasons with one code for each cause."""
    found = np.where(np.isin(reasons, _FAR), Reason.SPIKE_REJECTED, reasons)
    return np.where(found == Reason.RECURRING_LOSS, Reason.LOSS_REJECTED, found)


def touched_steps(steps: Judged | Run) -> np.ndarray:
    """Return which steps were rejected, or clipped because what is wrong keeps coming back."""
    return (steps.scale == 0) | (np.isin(steps.reason, LET_IN) & (steps.scale < 1))


def tell(pattern: Pattern, leaves: Sequence[str]) -> str:
    """Return a pattern in words, without a capital letter or a period."""
    number, one = len(pattern.rows), pattern.times == 1 and pattern.shape == Shape.BURST
    was = "was" if number == 1 or one else "were"
    where = ""
    if pattern.leaf >= 0:
        named = pattern.leaf < len(leaves)
        often = "most often" if number > 1 else "largest"
        where = f", {often} in {leaves[pattern.leaf] if named else f'leaf {pattern.leaf}'}"
    which = _which(pattern)
    if not pattern.far:
        return f"{which} {was} rejected{where}, because {sentence(pattern.reason)}"
    level = "far above"
    if np.isfinite(pattern.level):
        level = f"{'about ' if number > 1 else ''}{_rounded(pattern.level)} times"
    if pattern.rejected and pattern.let_in:
        fate = (
            f"{pattern.let_in:,} of them clipped to the usual size, {pattern.rejected:,} rejected"
        )
    else:
        fate = f"and {was} {'clipped to the usual size' if pattern.let_in else 'rejected'}"
    return f"{which} had a gradient norm {level} the usual{where}, {fate}"


def sentence_of(pattern: Pattern, leaves: Sequence[str]) -> str:
    """Return the same with a capital letter."""
    text = tell(pattern, leaves)
    return text[0].upper() + text[1:]


def _which(pattern: Pattern) -> str:
    number, between = len(pattern.rows), f"between {pattern.first:,} and {pattern.last:,}"
    if pattern.shape == Shape.STEADY:
        share = f"{100 * pattern.share:.2g} %"
        if pattern.lasts:
            return f"{share} of the last {pattern.of_steps:,} steps"
        return f"{share} of the steps from {pattern.first:,} to {pattern.last:,}"
    if pattern.shape == Shape.BURST and pattern.times == 1:
        return f"a burst of {number:,} steps, from {pattern.first:,} to {pattern.last:,},"
    if pattern.shape == Shape.BURST:
        return f"{pattern.times:,} bursts of {number:,} steps in all, {between},"
    if number == 1:
        return f"1 isolated step, {pattern.first:,},"
    return f"{number:,} isolated steps, {between},"


def _rounded(level: float) -> str:
    level = float(f"{level:.2g}")
    return f"{level:,.0f}" if 10 <= level < 1e6 else f"{level:.2g}"


def _shapes(rows: np.ndarray) -> list[tuple[Shape, list[np.ndarray]]]:
    """Sort touched rows by shape; bursts are one part, and so are isolated steps."""
    begin = np.append(0, np.flatnonzero(np.diff(rows) >= GAP) + 1)
    time_of = np.repeat(np.arange(len(begin)), np.diff(np.append(begin, len(rows))))
    solid = np.zeros(len(begin), bool)
    in_a_row = rows[_IN_A_ROW - 1 :] - rows[: 1 - _IN_A_ROW] < _IN_A_ROW
    solid[time_of[: 1 - _IN_A_ROW][in_a_row]] = True
    # A time belongs to a steady share if it is one of enough within the limit.
    others = np.flatnonzero(~solid)
    starts = rows[begin[others]]
    ends = starts[LEAST_TIMES - 1 :]
    near = np.flatnonzero(ends - starts[: len(ends)] <= _WITHIN)
    edges = np.zeros(len(others) + 1, np.int64)
    np.add.at(edges, near, 1)
    np.add.at(edges, near + LEAST_TIMES, -1)
    member = np.zeros(len(begin), bool)
    member[others] = np.cumsum(edges)[:-1] > 0
    steady, long = member[time_of], (solid | (np.bincount(time_of) >= LEAST_BURST))[time_of]
    kept, bursts, isolated = rows[steady], rows[long & ~steady], rows[~long & ~steady]
    shares = np.split(kept, np.flatnonzero(np.diff(kept) > _WITHIN) + 1) if kept.size else []
    return [
        (Shape.STEADY, shares),
        (Shape.BURST, [bursts] if bursts.size else []),
        (Shape.ISOLATED, [isolated] if isolated.size else []),
    ]


def _pattern(
    steps: Judged, touched: np.ndarray, shape: Shape, reason: int, rows: np.ndarray
) -> Pattern:
    begin, end, number = int(rows[0]), int(rows[-1]) + 1, len(steps.step)
    lasts = shape == Shape.STEADY and number - end < _WITHIN
    if lasts:
        since, end = max(number - MOST_RECENT, 0), number
        begin = begin if begin - since > _SHORTLY else since
        rows = rows[rows >= begin]
    leaves, often = np.unique(steps.worst_leaf[rows], return_counts=True)
    levels = steps.grad_norm[rows] / _usual(steps.grad_norm, ~touched, rows)
    levels = levels[np.isfinite(levels)]
    return Pattern(
        shape=shape,
        reason=reason,
        rows=rows,
        times=int((np.diff(rows) >= GAP).sum()) + 1,
        of_steps=end - begin,
        first=int(steps.step[begin]),
        last=int(steps.step[end - 1]),
        lasts=lasts,
        rejected=int((steps.scale[rows] == 0).sum()),
        level=float(np.median(levels)) if levels.size else float("nan"),
        leaf=int(leaves[np.argmax(np.where(leaves >= 0, often, 0))]),
    )


def _usual(norms: np.ndarray, untouched: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the median norm of the untouched steps before each of these rows."""
    known = np.flatnonzero(untouched & np.isfinite(norms) & (norms > 0))
    padded = np.concatenate([np.full(_HISTORY, np.nan), norms[known]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, _HISTORY)
    before = np.searchsorted(known, rows)
    return np.where(before >= _LEAST_HISTORY, lower_medians(windows[before]), np.nan)


def lower_medians(values: np.ndarray) -> np.ndarray:
    """Return the median of the numbers in each row, the lower of two; NaN if there are none."""
    ordered = np.sort(values, axis=1)  # NaN goes to the end
    number = (~np.isnan(values)).sum(axis=1)
    return ordered[np.arange(len(values)), np.maximum(number - 1, 0) // 2]
