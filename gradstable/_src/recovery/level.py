"""How high the loss is, and how high it was when a copy was taken: is the run worse off?

Losses of healthy runs rise too: those of games and of reinforcement learning come and go in waves,
and those of a curriculum jump. A run that is lost by its own steps rises further than it ever did.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.numerics import increment, largest_norm_in
from gradstable._src.rules.ring import EMPTY, Ring, held, new_ring, number_held, percentile_of, push

# Enough losses for a ninth decile that a single one does not move much.
_USUAL = 32
# As many as the default of patience: what a return is decided by.
_LATEST = 12
# Most of the last losses are above this percentile of them.
LOWER = 25.0
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
    lowest_levels: jax.Array  # shape=(2,), dtype=jnp.float32
    largest_rises: jax.Array  # shape=(2,), dtype=jnp.float32
    highest_level: jax.Array  # shape=(), dtype=jnp.float32, of bad losses since all was good


def new_level() -> Level:
    """Return the level of a run that has not begun."""
    return Level(
        losses_heard=jnp.zeros((), jnp.int32),
        usual_losses=new_ring(_USUAL),
        last_losses=new_ring(_LATEST),
        lowest_levels=jnp.full((2,), -EMPTY, jnp.float32),
        largest_rises=jnp.zeros((2,), jnp.float32),
        highest_level=jnp.full((), EMPTY, jnp.float32),
    )


def learn(
    level: Level,
    loss: jax.Array,
    *,
    good: jax.Array,
    bad: jax.Array,
    sound: jax.Array,
    calm: jax.Array,
    patience: int,
) -> Level:
    """Return the level after one more loss.

    Args:
      level: the level before it.
      loss: the loss.
      good: whether the step was good.
      bad: whether it was bad.
      sound: whether its gradient was finite. If it was not, the loss is that of a broken batch.
      calm: whether all the last steps were good, so that this is where the run is at home.
      patience: how many of the last losses count, up to twelve.
    """
    loss = countable(loss)
    heard = increment(level.losses_heard)
    new = level._replace(
        losses_heard=heard,
        usual_losses=push(level.usual_losses, loss, when=good),
        last_losses=push(level.last_losses, loss, when=sound),
    )
    over = heard % _PERIOD == 0
    lowest = jnp.where(over, _shifted(level.lowest_levels, -EMPTY), level.lowest_levels)
    rises = jnp.where(over, _shifted(level.largest_rises, 0.0), level.largest_rises)
    here = present_level(new, patience)
    lowest = lowest.at[0].min(jnp.where(calm, here, lowest[0]))
    # The run is at home here, and has come back from wherever it was.
    highest = jnp.where(calm | bad, jnp.maximum(level.highest_level, here), level.highest_level)
    rises = rises.at[0].max(jnp.where(calm, _rise(highest, lowest), 0.0))
    return new._replace(
        lowest_levels=lowest,
        largest_rises=rises,
        highest_level=jnp.where(calm, EMPTY, highest),
    )


def accept_rise(level: Level, patience: int) -> Level:
    """Return the level of a run for which the present loss is usual, however far it has risen."""
    rise = _rise(present_level(level, patience), level.lowest_levels)
    return forget_rise(level)._replace(largest_rises=level.largest_rises.at[0].max(rise))


def forget_rise(level: Level) -> Level:
    """Return the level of a run that did not come back by itself from where it has risen to."""
    return level._replace(highest_level=jnp.full((), EMPTY, jnp.float32))


def countable(loss: jax.Array) -> jax.Array:
    """Return a loss that can be compared: the largest number for NaN and for infinity."""
    largest = largest_norm_in(loss.dtype)
    return jnp.where(jnp.abs(loss) <= largest, loss, largest)


def upper_level(level: Level, patience: int) -> jax.Array:
    """Return the ninth decile of the usual losses, ``EMPTY`` while there are few."""
    enough = number_held(level.usual_losses) >= min(patience, _LATEST)
    return jnp.where(enough, percentile_of(level.usual_losses, 90.0), EMPTY)


def present_level(level: Level, patience: int, percent: float = 50.0) -> jax.Array:
    """Return a percentile of the last losses, ``EMPTY`` if there are none."""
    latest = _latest(level.last_losses, 0, min(patience, _LATEST))
    return jnp.where(number_held(latest) > 0, percentile_of(latest, percent), EMPTY)


def is_worse(level: Level, at_copy: jax.Array, patience: int) -> jax.Array:
    """Return whether the loss has risen unusually far above a copy's, and is not coming back.

    Args:
      level: the recent losses.
      at_copy: ``upper_level`` when the copy was taken; ``EMPTY``: unknown.
      patience: how many of the last losses count, up to twelve.
    """
    number = min(patience, _LATEST)
    here = present_level(level, patience, LOWER)
    rise = _rise(here, level.lowest_levels)
    worse = (at_copy != EMPTY) & (here > at_copy) & (rise > _RISE * jnp.max(level.largest_rises))
    half = number // 2
    if half:
        now = percentile_of(_latest(level.last_losses, 0, half), 50.0)
        before = percentile_of(_latest(level.last_losses, half, number), 50.0)
        # By a tenth of the way back in six steps: it would be there before a return pays off.
        worse &= now >= 0.9 * before + 0.1 * at_copy
    return worse


def _rise(here: jax.Array, lowest_levels: jax.Array) -> jax.Array:
    """Return how far a level is above the lowest; 0 if one of them is unknown."""
    lowest = jnp.min(lowest_levels)
    known = (here != EMPTY) & (lowest != -EMPTY)
    return jnp.where(known, here, 0.0) - jnp.where(known, lowest, 0.0)


def _latest(ring: Ring, begin: int, end: int) -> Ring:
    """Return a ring with only its latest numbers, from ``begin`` until before ``end``."""
    window = ring.last_numbers.shape[0]
    age = (ring.next_place - 1 - jnp.arange(window, dtype=jnp.int32)) % window
    chosen = (age >= begin) & (age < end) & held(ring)
    return ring._replace(last_numbers=jnp.where(chosen, ring.last_numbers, EMPTY))


def _shifted(numbers: jax.Array, first: float) -> jax.Array:
    return jnp.stack([jnp.asarray(first, numbers.dtype), numbers[0]])
