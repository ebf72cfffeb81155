"""Where a contestant that is not ours does better than one of ours by more than chance.

There are two tests, each for one task and one storm:

- survival: the difference of the shares of surviving seeds, each measured by the best clean loss of
  its own base, is more than two standard errors of such a difference (binomial, with the share of
  both together: ``sqrt(p (1 - p) (1/n + 1/m))``);
- loss: the difference of the median final losses is more than twice the pooled median absolute
  deviation over seeds (the root of the mean of both squares; of a sample with infinite losses, of
  its finite part). An infinite median loses to every finite one.

With few seeds and many peers, some findings are due to chance. The tests err on the side of
reporting too much.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from gradstable_gauntlet.measures import CLEAN, bad_as_inf, bar, middle, survived
from gradstable_gauntlet.results import Results

ERRORS = 2.0  # standard errors, or deviations, that a difference must exceed


class Beat(NamedTuple):
    """One of ours, beaten in one task and one storm."""

    task: str
    storm: str
    ours: str
    by: str  # the peer that beats it by most
    peers: int  # how many peers beat it
    measure: Literal["survival", "loss"]
    our_value: float  # share of seeds from 0 to 1, or median final loss
    their_value: float


def beaten(
    results: Results,
    *,
    ours: Iterable[str] | None = None,
    by: Iterable[str] | None = None,
    tasks: Iterable[str] | None = None,
    storms: Iterable[str] | None = None,
    same_base: bool = False,
) -> list[Beat]:
    """Return every task and storm in which one of ours is beaten by a peer.

    Args:
      results: the results of the gauntlet.
      ours: those that can be beaten. Default: all of ours.
      by: those that can beat them. Default: all that are not ours.
      tasks: the tasks to compare. Default: all.
      storms: the storms to compare. Default: all, and calm weather.
      same_base: whether peers are only those with the same base. Another optimizer that learns a
        task better says nothing about protection.

    Returns:
      One for each of ours, task, storm and measure in which that happens.
    """
    every = results.contestants
    mine = [name for name in every if every[name]["ours"]] if ours is None else list(ours)
    peers = [name for name in every if not every[name]["ours"]] if by is None else list(by)
    chosen = list(results.storms if storms is None else storms)
    found: list[Beat] = []
    for task in results.tasks if tasks is None else tasks:
        runs = _runs(results, task, {*mine, *peers})
        for name, storm in itertools.product(mine, chosen):
            rivals = {
                peer: runs[peer, storm]
                for peer in peers
                if (peer, storm) in runs
                and peer != name
                and (not same_base or every[peer]["base"] == every[name]["base"])
            }
            if (name, storm) in runs:
                found += _beats(task, storm, name, runs[name, storm], rivals)
    return found


def _runs(results: Results, task: str, names: set[str]) -> dict[tuple[str, str], "_Runs"]:
    found = {}
    for cell in results.cells:
        if cell.task == task and cell.contestant in names:
            clean = bar(results, cell)
            for storm, fate in cell.fates.items():
                alive = survived(fate, clean)
                found[cell.contestant, storm] = _Runs.of(fate.final, alive)
    return found


class _Runs(NamedTuple):
    """What the tests need to know about the seeds of one contestant in one task and one storm."""

    median: float
    deviation: float
    survivors: int
    seeds: int

    @classmethod
    def of(cls, final: np.ndarray, alive: np.ndarray) -> "_Runs":
        """Build it from the final losses and from which seeds survived."""
        return cls(middle(final), _deviation(final), int(alive.sum()), alive.size)

    @property
    def share(self) -> float:
        """The share of seeds that survived."""
        return self.survivors / max(self.seeds, 1)


def survives_more(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Return whether more seeds of the first survived than of the second, beyond chance."""
    nothing = np.array([])
    return _survives_more(_Runs.of(nothing, theirs), _Runs.of(nothing, ours))


def ends_lower(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Return whether the final losses of the first are below the second's, beyond chance."""
    nothing = np.array([], bool)
    return _ends_lower(_Runs.of(theirs, nothing), _Runs.of(ours, nothing))


def _survives_more(theirs: _Runs, ours: _Runs) -> bool:
    n, m = theirs.seeds, ours.seeds
    if not n or not m:
        return False
    both = (theirs.survivors + ours.survivors) / (n + m)
    error = math.sqrt(both * (1.0 - both) * (1.0 / n + 1.0 / m))
    return theirs.share - ours.share > ERRORS * error


def _ends_lower(theirs: _Runs, ours: _Runs) -> bool:
    if not math.isfinite(theirs.median) or math.isnan(ours.median):
        return False
    pooled = math.sqrt((theirs.deviation**2 + ours.deviation**2) / 2.0)
    return ours.median - theirs.median > ERRORS * pooled


def _beats(
    task: str, storm: str, name: str, own: _Runs, rivals: Mapping[str, _Runs]
) -> Iterator[Beat]:
    if storm != CLEAN:
        more = [peer for peer, runs in rivals.items() if _survives_more(runs, own)]
        if more:
            best = max(more, key=lambda peer: rivals[peer].share)
            shares = (own.share, rivals[best].share)
            yield Beat(task, storm, name, best, len(more), "survival", *shares)
    lower = [peer for peer, runs in rivals.items() if _ends_lower(runs, own)]
    if lower:
        best = min(lower, key=lambda peer: rivals[peer].median)
        yield Beat(task, storm, name, best, len(lower), "loss", own.median, rivals[best].median)


def _deviation(values: np.ndarray) -> float:
    """Return the median absolute deviation of the finite values."""
    known = bad_as_inf(values)
    known = known[np.isfinite(known)]
    return float(np.median(np.abs(known - np.median(known)))) if known.size else 0.0
