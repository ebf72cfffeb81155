"""The league: how each contestant did over many tasks and storms."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gradstable_gauntlet.measures import (
    CLEAN,
    bar,
    false_interventions,
    middle,
    rate_sensitivity,
    ratios,
    stable_range,
    survived,
)
from gradstable_gauntlet.results import Cell, Fate, Results
from gradstable_gauntlet.storms import FAIR_WEATHER
from gradstable_gauntlet.sweeps import clean_cost


class Share(NamedTuple):
    """The number of runs that survived, and of all runs."""

    survived: int
    runs: int

    @property
    def percent(self) -> float:
        """The share; NaN if there are no runs."""
        return 100.0 * self.survived / self.runs if self.runs else math.nan

    @property
    def error(self) -> float:
        """The binomial standard error, in percent, for given tasks and storms.

        It is computed with one more survivor and one more failure, so that it is not 0 if all or
        none survived.
        """
        if not self.runs:
            return math.nan
        part = (self.survived + 1) / (self.runs + 2)
        return 100.0 * math.sqrt(part * (1.0 - part) / (self.runs + 2))


class Spread(NamedTuple):
    """A median, and the smallest and largest value that a single seed would give."""

    value: float
    low: float
    high: float


class Standing(NamedTuple):
    """One contestant in the league.

    Attributes:
      contestant: its name.
      base: the name of the contestant that it protects.
      ours: whether it comes from gradstable.
      survival: the share of runs that survived, by group of storms, and under ``""`` in all
        faults; measured by the best clean loss with the same base.
      own: the same over all faults, measured by its own clean loss.
      ratio: final loss over that of the clean run of the same seed, median over tasks and faults.
      lost: steps lost to a storm, in percent of the steps of the task, median likewise.
      recovery: steps from the last fault to the loss of the clean run, median likewise.
      spikes: spike score, median likewise.
      sensitivity: to the learning rate, relative, mean over tasks; 1 where nothing is learned.
      sensitivity_high: the same for the upper half of the rates.
      decades: width of the range of stable rates, mean over tasks.
      upper_edge: highest stable rate, geometric mean over tasks; the lowest rate if none is stable.
      open_above: whether in some task it is stable at the highest rate of all, so that the edge is
        further up than the numbers say.
      false_interventions: percent of steps clipped or rejected in calm weather, mean over tasks.
      clean_cost: percent of clean loss above that of the base, both at the best rate of the base,
        median over tasks.
      clean_cost_below: the same at the next lower rate.
    """

    contestant: str
    base: str
    ours: bool
    survival: Mapping[str, Share]
    own: Share
    ratio: Spread
    lost: Spread
    recovery: Spread
    spikes: Spread
    sensitivity: float
    sensitivity_high: float
    decades: float
    upper_edge: float
    open_above: bool
    false_interventions: float
    clean_cost: float
    clean_cost_below: float


def reporting_tasks(results: Results) -> list[str]:
    """Return the tasks on which nothing was tuned, or all if there are none."""
    apart = [name for name, task in results.tasks.items() if not task.get("tuning")]
    return apart or list(results.tasks)


def groups(results: Results, storms: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the storms of each group, in the order of the results, without calm weather."""
    wanted = set(results.storms if storms is None else storms) - {CLEAN}
    found: dict[str, list[str]] = {}
    for storm, about in results.storms.items():
        if storm in wanted:
            found.setdefault(str(about["group"]), []).append(storm)
    return found


def faults(grouped: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the storms of all groups but fair weather, in which nothing is wrong."""
    return [storm for group, some in grouped.items() if group != FAIR_WEATHER for storm in some]


def by_storm(
    results: Results, contestant: str, tasks: Iterable[str], *, own: bool = False
) -> dict[str, Share]:
    """Return how many runs survived each storm, over all seeds and tasks that were run.

    ``own`` is that of ``bar``.
    """
    found = dict.fromkeys(results.storms, Share(0, 0))
    for cell in _cells(results, contestant, tasks):
        clean = bar(results, cell, own=own)
        for storm, fate in cell.fates.items():
            alive = survived(fate, clean)
            found[storm] = together([found[storm], Share(int(alive.sum()), alive.size)])
    return found


def together(shares: Iterable[Share]) -> Share:
    """Return the share over all these runs."""
    every = list(shares)
    return Share(sum(one.survived for one in every), sum(one.runs for one in every))


def league(
    results: Results, *, tasks: Iterable[str] | None = None, storms: Iterable[str] | None = None
) -> list[Standing]:
    """Return the standing of every contestant, most survivals first.

    Args:
      results: the results of the gauntlet.
      tasks: the tasks that count. Default: all. For reports, leave out those used for tuning; see
        ``reporting_tasks``.
      storms: the storms that count. Default: all.

    Returns:
      One standing for each contestant that ran in any of these tasks. Every run counts the same;
      runs that were not made do not count.
    """
    chosen = list(results.tasks if tasks is None else tasks)
    grouped = groups(results, storms)
    standings = [
        _standing(results, name, chosen, grouped)
        for name in results.contestants
        if _cells(results, name, chosen)
    ]
    return sorted(standings, key=lambda one: -_known(one.survival[""].percent, -1.0))


def _standing(
    results: Results, name: str, tasks: list[str], grouped: Mapping[str, list[str]]
) -> Standing:
    about = results.contestants[name]
    cells = _cells(results, name, tasks)
    storms = faults(grouped)
    alive = by_storm(results, name, tasks)
    own = by_storm(results, name, tasks, own=True)
    by_group = {group: together(alive[one] for one in some) for group, some in grouped.items()}
    rates = np.asarray(results.rates, np.float64)
    stable = [stable_range(rates, cell.sweep) for cell in cells]
    edges = [rates[0] if math.isnan(one.high) else one.high for one in stable]
    pairs = [
        (cell, base)
        for cell in cells
        if (base := results.cell(cell.task, str(about["base"]))) is not None
    ]
    touched = np.array([false_interventions(cell) for cell in cells])

    def over_runs(measure: Callable[[Cell, Fate], np.ndarray]) -> Spread:
        return _spread([measure(c, c.fates[s]) for c in cells for s in storms if s in c.fates])

    def cost(*, below: int) -> float:
        return _median_of_known(np.array([clean_cost(*pair, below=below) for pair in pairs]))

    def sensitivity(*, upper: bool) -> float:
        each = [
            rate_sensitivity(c.sweep, middle(c.start), upper=upper, relative=True) for c in cells
        ]
        return float(np.mean([_known(one, 1.0) for one in each]))

    return Standing(
        contestant=name,
        base=str(about["base"]),
        ours=bool(about["ours"]),
        survival={**by_group, "": together(alive[storm] for storm in storms)},
        own=together(own[storm] for storm in storms),
        ratio=over_runs(lambda cell, fate: _ratios(fate, cell)),
        lost=over_runs(lambda cell, fate: 100.0 * fate.lost / results.tasks[cell.task]["steps"]),
        recovery=over_runs(lambda _, fate: fate.recovery),
        spikes=over_runs(lambda _, fate: fate.spikes),
        sensitivity=sensitivity(upper=False),
        sensitivity_high=sensitivity(upper=True),
        decades=float(np.mean([one.decades for one in stable])),
        upper_edge=float(np.exp(np.mean(np.log(edges)))),
        open_above=any(one.open_high for one in stable),
        false_interventions=100.0 * _mean_of_known(touched),
        clean_cost=cost(below=0),
        clean_cost_below=cost(below=1),
    )


def _cells(results: Results, contestant: str, tasks: Iterable[str]) -> list[Cell]:
    wanted = set(tasks)
    return [c for c in results.cells if c.contestant == contestant and c.task in wanted]


def _ratios(fate: Fate, cell: Cell) -> np.ndarray:
    """Return the ratios; infinite where the clean run blew up, so that it does not look better."""
    if CLEAN not in cell.fates:
        return np.full(fate.final.shape, np.nan)
    found = ratios(fate, cell.fates[CLEAN])
    return np.where(np.isnan(found), np.inf, found)


def _spread(rows: Sequence[np.ndarray]) -> Spread:
    """Return the median of all known values, and the range of medians of single seeds."""
    every = np.concatenate([row.ravel() for row in rows]) if rows else np.array([])
    value = _median_of_known(every)
    seeds = min((row.size for row in rows), default=0)
    each = [_median_of_known(np.array([row[seed] for row in rows])) for seed in range(seeds)]
    each = [one for one in each if not math.isnan(one)] or [value]
    return Spread(value, min(each), max(each))


def _median_of_known(values: np.ndarray) -> float:
    return middle(values[~np.isnan(values)])


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else math.nan


def _known(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value
