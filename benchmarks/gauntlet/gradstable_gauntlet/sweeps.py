"""What a contestant costs in calm weather: sweeps over learning rates, compared rate by rate."""

import math

import numpy as np

from gradstable_gauntlet.measures import over_seeds
from gradstable_gauntlet.results import Cell


def best_rate(sweep: np.ndarray) -> int:
    """Return the place of the rate with the smallest median loss; the lowest of equal ones."""
    return int(np.argmin(over_seeds(sweep)))


def clean_cost(cell: Cell, base: Cell, *, below: int = 0) -> float:
    """Return by how many percent the clean loss is above that of the base; below: negative.

    Both are medians over the tuning seeds at the rate that is best for the base. At a rate of its
    own, a contestant that makes all steps smaller would choose a higher one, and hide its cost.

    Args:
      cell: the contestant.
      base: its base in the same task, with the same rates.
      below: how many places of the grid below that rate to compare at instead.

    Returns:
      The cost: infinite if the contestant blows up there, NaN if the base does, or if the grid ends
      above that rate.
    """
    place = best_rate(base.sweep) - below
    if place < 0:
        return math.nan
    own, other = (over_seeds(one.sweep)[place] for one in (cell, base))
    return 100.0 * (own / other - 1.0) if math.isfinite(other) and other > 0 else math.nan
