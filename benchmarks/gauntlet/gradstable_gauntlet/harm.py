"""The harm that a contestant does where nothing is wrong: its losses on the healthy tasks."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gradstable_gauntlet.league import Spread
from gradstable_gauntlet.measures import bad_as_inf, false_interventions, middle, over_seeds
from gradstable_gauntlet.results import Cell, Results
from gradstable_gauntlet.sweeps import best_rate

CLIP = "clip"  # the plainest protection: who does worse has no excuse


class Harm(NamedTuple):
    """One contestant in one healthy task, in calm weather.

    Attributes:
      contestant: its name.
      task: the name of the task.
      loss: the final loss over that of the yardstick, see ``harm``; median, smallest and largest of
        the tuning seeds.
      touched: percent of steps clipped or rejected, at the rate of the contestant.
    """

    contestant: str
    task: str
    loss: Spread
    touched: float


def harm(results: Results, *, tasks: Iterable[str] | None = None) -> list[Harm]:
    """Return what came of each contestant in each healthy task, the best of each task first.

    The yardstick is the better of the base and of ``clip``, if that ran and has the same base: a
    norm limit can help even where nothing is wrong. All are compared at the rate that is best for
    the base, with the seeds of the sweep.

    Args:
      results: the results of the gauntlet.
      tasks: the tasks to report; those that are not healthy are left out. Default: all.
    """
    found: list[Harm] = []
    for task in results.tasks if tasks is None else tasks:
        if results.tasks[task].get("fair"):
            cells = [cell for cell in results.cells if cell.task == task]
            found += sorted((_harm(results, cell) for cell in cells), key=_badness)
    return found


def _harm(results: Results, cell: Cell) -> Harm:
    loss = Spread(math.nan, math.nan, math.nan)
    base = str(results.contestants[cell.contestant]["base"])
    bare = results.cell(cell.task, base)
    if bare is not None:
        place = best_rate(bare.sweep)
        clip = results.cell(cell.task, CLIP)
        same = clip is not None and results.contestants[CLIP]["base"] == base
        kin = [bare, clip] if clip is not None and same else [bare]
        least = min(float(over_seeds(one.sweep)[place]) for one in kin)
        if math.isfinite(least) and least > 0:
            each = bad_as_inf(cell.sweep[place]) / least
            loss = Spread(middle(each), float(np.min(each)), float(np.max(each)))
    return Harm(cell.contestant, cell.task, loss, 100.0 * false_interventions(cell))


def _badness(one: Harm) -> float:
    return math.inf if math.isnan(one.loss.value) else one.loss.value
