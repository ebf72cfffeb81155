"""The last numbers of a history, in a ring: the memory of rules with a window."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.numerics import unlimited

# Marks a slot that holds no number yet. Finite, for use with jax_debug_infs.
EMPTY = float(jnp.finfo(jnp.float32).min)


class Ring(NamedTuple):
    """The last ``W`` numbers that were pushed; also the whole state of some rules.

    Their number is read off the slots themselves, not counted separately, so that a counter set
    from outside cannot turn empty slots into numbers.
    """

    next_place: jax.Array  # shape=(), dtype=jnp.int32, the slot for the next number
    last_numbers: jax.Array  # shape=(W,), dtype=jnp.float32, EMPTY where nothing is held yet


def new_ring(window: int) -> Ring:
    """Return an empty ring for the last ``window`` numbers."""
    return Ring(
        next_place=jnp.zeros((), jnp.int32),
        last_numbers=jnp.full((window,), EMPTY, jnp.float32),
    )


def push(ring: Ring, value: jax.Array, *, when: ArrayLike = True) -> Ring:
    """Return a ring with one more number, in place of the oldest; unchanged if not ``when``."""
    window = ring.last_numbers.shape[0]
    place = ring.next_place % window
    here = when & (jnp.arange(window, dtype=jnp.int32) == place)
    return Ring(
        next_place=(place + jnp.asarray(when, jnp.int32)) % window,
        last_numbers=jnp.where(here, value, ring.last_numbers),
    )


def held(ring: Ring) -> jax.Array:
    """Return which slots of the ring hold a number (bool ``[W]``)."""
    return ring.last_numbers != EMPTY


def number_held(ring: Ring) -> jax.Array:
    """Return how many numbers there are (int32 scalar)."""
    return jnp.sum(held(ring), dtype=jnp.int32)


def mean_and_std(ring: Ring, *, ddof: int) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of the numbers held; 0 if there are none.

    Args:
      ring: the numbers.
      ddof: what to subtract from their count in the variance: 0 for that of the population, 1 for
        an unbiased estimate.
    """
    # In units of the largest, so that no square overflows or vanishes, whatever their scale.
    there, number = held(ring), number_held(ring).astype(jnp.float32)
    values = jnp.where(there, ring.last_numbers, 0.0)
    largest = jnp.max(jnp.abs(values))
    unit = jnp.where(largest > 0, largest, 1.0)
    values = values / unit
    mean = jnp.sum(values) / jnp.maximum(number, 1.0)
    squares = jnp.where(there, jnp.square(values - mean), 0.0)
    std = jnp.sqrt(jnp.sum(squares) / jnp.maximum(number - ddof, 1.0))
    return mean * unit, std * unit


def percentile_of(ring: Ring, percent: ArrayLike) -> jax.Array:
    """Return a percentile, linearly interpolated, of the numbers held; ``inf`` if none."""
    ordered = jnp.sort(jnp.where(held(ring), ring.last_numbers, unlimited()))
    number = number_held(ring)
    last = jnp.maximum(number - 1, 0)
    rank = jnp.asarray(percent, jnp.float32) / 100.0 * last.astype(jnp.float32)
    low = jnp.minimum(jnp.floor(rank).astype(jnp.int32), last)
    below, above = ordered[low], ordered[jnp.minimum(low + 1, last)]
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    return jnp.where(number > 0, between, unlimited())


def median_and_mad(ring: Ring) -> tuple[jax.Array, jax.Array]:
    """Return the median of the numbers held, and the median absolute deviation from it."""
    median = percentile_of(ring, 50.0)
    deviations = jnp.where(held(ring), jnp.abs(ring.last_numbers - median), EMPTY)
    return median, percentile_of(ring._replace(last_numbers=deviations), 50.0)
