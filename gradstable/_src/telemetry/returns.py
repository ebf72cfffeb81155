"""What the library did to a recorded run: its rollbacks, whether they helped, and its back-off."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstable._src.core.reasons import Reason
from gradstable._src.telemetry.patterns import lower_medians
from gradstable._src.telemetry.run import Run
from gradstable._src.telemetry.undone import Undone, undone_in

# The median losses of this many steps before and after a rollback are compared: the patience of
# gs.rollback, which sees as many bad steps before it acts.
_STEPS, _LEAST = 12, 4
# It helped if the loss is at most this share of what it was: a loss spikes at twice the usual.
_BETTER = 0.5
# This many rollbacks are no accident.
_OFTEN = 3
# Below this factor a run moves at another speed than its schedule says: one rollback takes
# gs.backoff there.
SMALL = 0.1
# A fall of the factor from one step to the next.
_FALL = 0.99
# Back-off never raises the factor by more than a few percent in one step.
_RISE = 1.1
# A rollback takes at most this many updates, as for gs.check: after more, the run is paused.
_MOST_UPDATES = 12


class Returns(NamedTuple):
    """All rollbacks of a run.

    Attributes:
      times: how many there were.
      first: the step of the first one that is known.
      last: the step of the last one.
      to: the step before which the copy was taken to which the last one led.
      undone: how many were undone, since the loss was as high with the older parameters.
      undone_at: the step at which the last of these was; 0 if there was none.
      judged: for how many of the others the loss before and after is known.
      better: after how many of these it was lower.
      held: bool ``[n]``, which steps rolled back or paused, and were no steps of the optimizer.
      paused: the step from which the run was paused to the end; 0 if it was not.
    """

    times: int
    first: int
    last: int
    to: int
    undone: int
    undone_at: int
    judged: int
    better: int
    held: np.ndarray
    paused: int

    @property
    def in_vain(self) -> bool:
        """Whether the loss was no better after most rollbacks that were not undone."""
        return self.judged > 2 * self.better

    @property
    def often(self) -> bool:
        """Whether there were too many for an accident, without those that were undone."""
        return self.times - self.undone >= _OFTEN

    @property
    def sentence(self) -> str:
        """What happened, in one or two sentences."""
        text = "Rolled back once, at" if self.times == 1 else f"Rolled back {self.times:,} times,"
        if self.first < self.last:
            text = f"{text[:-1]} between steps {self.first:,} and {self.last:,}, the last time"
        else:
            text += f"{'' if self.times == 1 else ' the last at'} step {self.last:,},"
        text += f" to the state before step {self.to:,}"
        if self.paused:
            return f"{text}; paused from step {self.paused:,} on."
        text += self._of_undone
        if self.in_vain:
            after = "it" if self.times == 1 else "most returns"
            if self.undone:
                after = "the rest"
            return f"{text}. The loss was not lower after {after}: rolling back did not help."
        if self.often:
            return f"{text}. The run diverged again and again: the cause lasts."
        if self.undone:
            return f"{text}. After the rest, the loss was lower." if self.better else f"{text}."
        return f"{text}; the loss was lower afterward." if self.better else f"{text}."

    @property
    def _of_undone(self) -> str:
        if not self.undone:
            return ""
        which = f"{self.undone:,} of these were undone, the last"
        if self.times == 1:
            which = "that was undone"
        elif self.undone == 1:
            which = "one of these was undone,"
        elif self.undone == self.times:
            which = "all were undone, the last"
        return (
            f"; {which} at step {self.undone_at:,}: the loss was as high with the older "
            "parameters, so the data have changed"
        )


@np.errstate(invalid="ignore")  # infinite losses
def returns_of(run: Run) -> Returns | None:
    """Return the rollbacks of a run; ``None`` if there were none.

    The file has one line for all rollbacks between two readings. Where there is a guard, the others
    show in the steps: these have no verdict, and so no threshold.
    """
    if not run.rollbacks:
        return None
    last, held = max(run.rollbacks), _without_verdict(run)
    begins = np.flatnonzero(held & ~np.append(False, held[:-1]))
    told = np.searchsorted(run.step, [event.step for event in run.rollbacks])
    told = told[told < len(run.step)]
    begins = np.union1d(begins, told[~held[told]])
    free = np.append(np.flatnonzero(~held), len(held))
    ends = free[np.searchsorted(free, begins)]
    before = _median_loss(run, begins - _STEPS, begins)
    after = _median_loss(run, ends, np.append(begins[1:], len(held)))
    limit = np.where(np.isinf(before), before, before - (1 - _BETTER) * np.abs(before))
    taken_back = undone_in(run)
    undone = sum(one.times for one in taken_back)
    improved = (after < before) & (after <= limit)
    kept = _kept(run.step[begins], taken_back, improved)
    judged = kept & ~np.isnan(before) & ~np.isnan(after)
    times = max(sum([event.times for event in run.rollbacks]), len(begins), 1, undone)
    paused = bool(begins.size) and ends[-1] == len(held) > begins[-1] + _MOST_UPDATES
    return Returns(
        times=times,
        first=min([last.step, *run.step[begins[:1]].tolist()]),
        last=last.step,
        to=last.to,
        undone=undone,
        undone_at=taken_back[-1].step if taken_back else 0,
        judged=int(judged.sum()),
        better=int((judged & improved).sum()),
        held=held,
        paused=int(run.step[begins[-1]]) if paused else 0,
    )


def _kept(begins: np.ndarray, taken_back: Sequence[Undone], improved: np.ndarray) -> np.ndarray:
    """Return which of the rollbacks that begin at these steps were not undone.

    Each note names the end of the last rollback that was undone since the note before; any others
    are the last ones before it after which the loss was no lower.
    """
    kept, since = np.ones(len(begins), bool), 0
    for one in taken_back:
        rows = np.flatnonzero((begins > since) & (begins <= one.step))
        others = rows[:-1][~improved[rows[:-1]]]
        kept[rows[-1:]] = False
        kept[others[max(len(others) - one.times + 1, 0) :]] = False
        since = one.step
    return kept


def slowed(run: Run) -> int:
    """Return how often back-off lowered the steps of a run that ends below ``SMALL``; else 0.

    Back-off raises the factor again, which a plateau never does, and raises it slowly, which a
    trust region does not.
    """
    factor = run.lr_factor
    small = len(factor) > 0 and factor[-1] < SMALL
    if not small or not (np.diff(factor) > 0).any() or is_governed(run):
        return 0
    return int((factor[1:] < _FALL * factor[:-1]).sum())


def is_governed(run: Run) -> bool:
    """Return whether the factor on steps comes from a trust region, which follows their length.

    Back-off also raises it, where a rollback is undone.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rises = run.lr_factor[1:] > _RISE * run.lr_factor[:-1]
    if run.rollbacks:
        rises &= ~_without_verdict(run)[1:]
    for one in undone_in(run):
        rises &= ~((run.step[:-1] < one.step) & (one.step <= run.step[1:]))
    return bool(rises.any())


def _without_verdict(run: Run) -> np.ndarray:
    none = (run.threshold == np.inf) & (run.scale == 1) & (run.reason == Reason.OK)
    # At first, rules have no threshold either; without a guard there never is one.
    return none & (np.cumsum(np.isfinite(run.threshold)) > 0)


def _median_loss(run: Run, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the median of the first losses of these stretches; NaN if too few are recorded."""
    rows = begin[:, np.newaxis] + np.arange(_STEPS)
    inside = (rows >= 0) & (rows < np.minimum(end, len(run.step))[:, np.newaxis])
    # With a loss or a gradient that is not a number, a step is as bad as can be.
    broken = np.isnan(run.loss) | (run.rejected & (run.reason == Reason.NONFINITE))
    losses = np.where(broken, np.inf, run.loss)[np.where(inside, rows, 0)]
    middle = lower_medians(np.where(inside, losses, np.nan))
    return np.where(run.has_loss & (inside.sum(axis=1) >= _LEAST), middle, np.nan)
