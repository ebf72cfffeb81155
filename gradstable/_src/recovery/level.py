"""How high the loss is, and how high it was when a copy was taken: is the run worse off?

Losses of healthy runs rise too: those of games and of reinforcement learning come and go in waves,
and those of a curriculum jump. A run that is lost by its own steps rises further than it ever did.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.numerics import increment, largest_norm_in, unlimited
from gradstable._src.rules.ring import EMPTY, Ring, held, new_ring, push

# Enough losses for a ninth decile that a single one does not move much.
_USUAL = 32
# As many as the default of patience: what a return is decided by.
_LATEST = 12
# Most of the last losses are above this percentile of them.
_LOWER = 25.0
# Rises are forgotten after one to two times as many steps.
_PERIOD = 500
# A rise is unusual if it is this many times as large as the largest that is remembered.
_RISE = 3.0


class Level(NamedTuple):
    """Recent losses and the rises of their median; empty if ``value`` is not passed.

    Rises are those of the present period of 500 steps, and of the one before it.
    """

    losses_heard: jax.Array  # shape=(), dtype=jnp.int32
    usual_losses: Ring  # the last good ones
    last_losses: Ring  # the last ones of any kind
    lowest_levels: tuple[jax.Array, jax.Array]  # shape=(), dtype=jnp.float32
    largest_rises: tuple[jax.Array, jax.Array]  # shape=(), dtype=jnp.float32
    highest_level: jax.Array  # shape=(), dtype=jnp.float32, of bad losses since all was good


def new_level() -> Level:
    """Return the level of a run that has not begun."""
    return Level(
        losses_heard=jnp.zeros((), jnp.int32),
        usual_losses=new_ring(_USUAL),
        last_losses=new_ring(_LATEST),
        lowest_levels=(_number(-EMPTY), _number(-EMPTY)),
        largest_rises=(_number(0.0), _number(0.0)),
        highest_level=_number(EMPTY),
    )


def _number(value: float) -> jax.Array:
    return jnp.full((), value, jnp.float32)


class Heights(NamedTuple):
    """Percentiles of the recent losses; ``EMPTY`` if there are too few, ``inf`` for the halves."""

    usual: jax.Array  # the ninth decile of the good ones
    lower: jax.Array  # the lower quartile of the last ones
    median: jax.Array
    now: jax.Array  # the median of the latest half of them
    before: jax.Array  # of the other half
    after: jax.Array  # of all, with that of this step


def heights_of(level: Level, loss: jax.Array | None, sound: jax.Array, patience: int) -> Heights:
    """Return all percentiles, which take one sort.

    Args:
      level: the recent losses.
      loss: that of this step, ``None``: unknown.
      sound: whether its gradient is finite. If it is not, the loss is that of a broken batch.
      patience: how many of the last losses count, up to twelve.
    """
    last = level.last_losses
    after = last if loss is None else push(last, countable(loss), when=sound)
    number = min(patience, _LATEST)
    half = number // 2
    windows = (last, 0, number), (last, 0, half), (last, half, number), (after, 0, number)
    rows = [level.usual_losses.last_numbers, *(_latest(*window) for window in windows)]
    table = jnp.stack([jnp.pad(r, (0, _USUAL - r.size), constant_values=EMPTY) for r in rows])
    there = table != EMPTY
    ordered = jnp.sort(jnp.where(there, table, unlimited()), axis=1)
    counts = jnp.sum(there, axis=1, dtype=jnp.int32)
    # Of which row, which percentile, how many losses that needs, and what it is if there are fewer.
    of = np.array([0, 1, 1, 2, 3, 4], np.int32)
    percents = np.array([90.0, _LOWER, 50.0, 50.0, 50.0, 50.0], np.float32)
    least = np.array([number, 1, 1, 1, 1, 1], np.int32)
    none = np.array([EMPTY, EMPTY, EMPTY, unlimited(), unlimited(), EMPTY], np.float32)
    end = jnp.maximum(counts[of] - 1, 0)
    rank = percents / np.float32(100.0) * end.astype(jnp.float32)
    low = jnp.minimum(jnp.floor(rank).astype(jnp.int32), end)
    below = ordered.at[of, low].get(mode="promise_in_bounds")
    above = ordered.at[of, jnp.minimum(low + 1, end)].get(mode="promise_in_bounds")
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    found = jnp.where(counts[of] >= least, between, none)
    return Heights(*(found[index] for index in range(found.size)))


def learn(
    level: Level,
    heights: Heights,
    loss: jax.Array,
    *,
    good: jax.Array,
    bad: jax.Array,
    sound: jax.Array,
    calm: jax.Array,
) -> Level:
    """Return the level after one more loss.

    Args:
      level: the level before it.
      heights: its percentiles.
      loss: the loss.
      good: whether the step was good.
      bad: whether it was bad.
      sound: whether its gradient was finite.
      calm: whether all the last steps were good, so that this is where the run is at home.
    """
    loss = countable(loss)
    heard = increment(level.losses_heard)
    over = heard % _PERIOD == 0
    lowest, before = _shifted_if(over, level.lowest_levels, -EMPTY)
    rise, rise_before = _shifted_if(over, level.largest_rises, 0.0)
    lowest = jnp.where(calm, jnp.minimum(lowest, heights.after), lowest)
    # The run is at home here, and has come back from wherever it was.
    highest = jnp.where(
        calm | bad, jnp.maximum(level.highest_level, heights.after), level.highest_level
    )
    new_rise = jnp.where(calm, _rise(highest, (lowest, before)), 0.0)
    return Level(
        losses_heard=heard,
        usual_losses=push(level.usual_losses, loss, when=good),
        last_losses=push(level.last_losses, loss, when=sound),
        lowest_levels=(lowest, before),
        largest_rises=(jnp.maximum(rise, new_rise), rise_before),
        highest_level=jnp.where(calm, EMPTY, highest),
    )


def accept_rise(level: Level, heights: Heights) -> Level:
    """Return the level of a run for which the present loss is usual, however far it has risen."""
    rise, before = level.largest_rises
    risen = _rise(heights.median, level.lowest_levels)
    return forget_rise(level)._replace(largest_rises=(jnp.maximum(rise, risen), before))


def forget_rise(level: Level) -> Level:
    """Return the level of a run that did not come back by itself from where it has risen to."""
    return level._replace(highest_level=_number(EMPTY))


def countable(loss: jax.Array) -> jax.Array:
    """Return a loss that can be compared: the largest number for NaN and for infinity."""
    largest = largest_norm_in(loss.dtype)
    return jnp.where(jnp.abs(loss) <= largest, loss, largest)


def is_worse(level: Level, heights: Heights, at_copy: jax.Array) -> jax.Array:
    """Return whether the loss has risen unusually far above a copy's, and is not coming back.

    Args:
      level: the recent losses.
      heights: its percentiles.
      at_copy: the usual height when the copy was taken; ``EMPTY``: unknown.
    """
    here, rise = heights.lower, _rise(heights.lower, level.lowest_levels)
    worse = (at_copy != EMPTY) & (here > at_copy)
    worse &= rise > _RISE * jnp.maximum(*level.largest_rises)
    # By a tenth of the way back in six steps: it would be there before a return pays off.
    return worse & (heights.now >= 0.9 * heights.before + 0.1 * at_copy)


def _rise(here: jax.Array, lowest_levels: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return how far a level is above the lowest; 0 if one of them is unknown."""
    lowest = jnp.minimum(*lowest_levels)
    known = (here != EMPTY) & (lowest != -EMPTY)
    return jnp.where(known, here, 0.0) - jnp.where(known, lowest, 0.0)


def _latest(ring: Ring, begin: int, end: int) -> jax.Array:
    """Return a ring's numbers, without all but the latest, from ``begin`` until before ``end``."""
    window = ring.last_numbers.shape[0]
    age = ring.next_place - 1 - jnp.arange(window, dtype=jnp.int32)
    age = jnp.where(age < 0, age + window, age)
    chosen = (age >= begin) & (age < end) & held(ring)
    return jnp.where(chosen, ring.last_numbers, EMPTY)


def _shifted_if(
    over: jax.Array, numbers: tuple[jax.Array, jax.Array], first: float
) -> tuple[jax.Array, jax.Array]:
    """Return the numbers of this period and of the one before, if a period is over."""
    here, before = numbers
    return jnp.where(over, first, here), jnp.where(over, here, before)
