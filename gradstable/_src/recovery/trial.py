"""Try whether a return helps: a few losses with the parameters of the copy, on present data.

If they are as high as before, the parameters were not to blame but the data, and the return is
undone. Meanwhile parameters stand still: at a rate that is too high, each step would spoil the
next loss.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.numerics import increment
from gradstable._src.recovery.level import countable
from gradstable._src.rules.ring import EMPTY

# Two of three losses decide: one alone can be an outlier.
TRIES = 3


class Trial(NamedTuple):
    """The losses after a return."""

    tries_left: jax.Array  # shape=(), dtype=jnp.int32, losses still to be seen; 0: no trial
    high_losses: jax.Array  # shape=(), dtype=jnp.int32, how many of them were as high as before
    limit: jax.Array  # shape=(), dtype=jnp.float32, above it they are; EMPTY: the rules decide
    undoable: jax.Array  # shape=(), dtype=jnp.bool_, the last copy is of the run before the return


def no_trial() -> Trial:
    """Return the trial of a run that has not begun. No two counters share a buffer."""
    return Trial(
        tries_left=jnp.zeros((), jnp.int32),
        high_losses=jnp.zeros((), jnp.int32),
        limit=jnp.full((), EMPTY, jnp.float32),
        undoable=jnp.zeros((), jnp.bool_),
    )


def begin(before: jax.Array, at_copy: jax.Array, undoable: jax.Array) -> Trial:
    """Return a new trial.

    Args:
      before: the level of the losses that led back; ``EMPTY``: unknown.
      at_copy: the level when the copy was taken; ``EMPTY``: unknown.
      undoable: whether the run before the return is kept.
    """
    known = (before != EMPTY) & (at_copy != EMPTY)
    middle = 0.5 * before + 0.5 * at_copy
    return Trial(
        tries_left=jnp.full((), TRIES, jnp.int32),
        high_losses=jnp.zeros((), jnp.int32),
        limit=jnp.where(known, middle, EMPTY),
        undoable=undoable,
    )


def hear(trial: Trial, loss: jax.Array | None, good: jax.Array) -> Trial:
    """Return a trial after one more loss.

    Args:
      trial: the trial before it.
      loss: the loss, ``None``: unknown.
      good: whether the rules accept the step, and its gradient is finite.
    """
    high = ~good
    if loss is not None:
        high = jnp.where(trial.limit != EMPTY, countable(loss) > trial.limit, high)
    return trial._replace(
        tries_left=jnp.maximum(trial.tries_left - 1, 0),
        high_losses=jnp.where(high, increment(trial.high_losses), trial.high_losses),
    )


def failed(trial: Trial) -> jax.Array:
    """Return whether most of the losses were as high as before."""
    return 2 * trial.high_losses > TRIES
