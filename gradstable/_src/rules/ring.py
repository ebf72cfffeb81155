"""The last numbers of a history, in a ring: what rules with a window remember."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.numerics import unlimited

# In a place that holds no number yet. Finite, for those who look for infinities.
EMPTY = float(jnp.finfo(jnp.float32).min)


class Ring(NamedTuple):
    """The last ``W`` numbers that were pushed, and also the state of rules that keep no more.

    How many there are is seen in the places themselves, not counted apart: no counter that is set
    from outside can make numbers of places that hold none.
    """

    next_place: jax.Array  # shape=(), dtype=jnp.int32, where the next number is put
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
    """Return which places of the ring hold a number (bool ``[W]``)."""
    return ring.last_numbers != EMPTY


def number_held(ring: Ring) -> jax.Array:
    """Return how many numbers there are (int32 scalar)."""
    return jnp.sum(held(ring), dtype=jnp.int32)


def mean_and_std(ring: Ring, *, ddof: int) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of what is held; 0 if nothing is.

    Args:
      ring: the numbers.
      ddof: what is taken from their number in the variance: 0 for that of the population, 1 for
        an unbiased estimate.
    """
    # In units of the largest, so that no square overflows or vanishes, whatever their scale is.
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
    """Return a percentile, linearly interpolated, of what is held; ``inf`` if nothing is."""
    ordered = jnp.sort(jnp.where(held(ring), ring.last_numbers, unlimited()))
    number = number_held(ring)
    last = jnp.maximum(number - 1, 0)
    rank = jnp.asarray(percent, jnp.float32) / 100.0 * last.astype(jnp.float32)
    low = jnp.minimum(jnp.floor(rank).astype(jnp.int32), last)
    below, above = ordered[low], ordered[jnp.minimum(low + 1, last)]
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    return jnp.where(number > 0, between, unlimited())


def median_and_mad(ring: Ring) -> tuple[jax.Array, jax.Array]:
    """Return the median of what is held, and the median absolute deviation from it."""
    median = percentile_of(ring, 50.0)
    deviations = jnp.where(held(ring), jnp.abs(ring.last_numbers - median), EMPTY)
    return median, percentile_of(ring._replace(last_numbers=deviations), 50.0)
