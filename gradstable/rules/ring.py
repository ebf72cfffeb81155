"""The last numbers of a history, in a ring: what rules with a window remember."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._core.numerics import unlimited


class Ring(NamedTuple):
    """The last ``W`` numbers that were pushed, and also the state of rules that keep no more."""

    count: jax.Array  # shape=(), dtype=jnp.int32, numbers held; stops at W
    position: jax.Array  # shape=(), dtype=jnp.int32, where the next number is put
    values: jax.Array  # shape=(W,), dtype=jnp.float32, zero where nothing is held yet


def new_ring(window: int) -> Ring:
    """Return an empty ring for the last ``window`` numbers."""
    return Ring(
        count=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        values=jnp.zeros((window,), jnp.float32),
    )


def push(ring: Ring, value: jax.Array, *, when: ArrayLike = True) -> Ring:
    """Return a ring with one more number, in place of the oldest; unchanged if not ``when``."""
    window = ring.values.shape[0]
    here = when & (jnp.arange(window, dtype=jnp.int32) == ring.position)
    step = jnp.asarray(when, jnp.int32)
    return Ring(
        count=jnp.minimum(ring.count + step, window),
        position=(ring.position + step) % window,
        values=jnp.where(here, value, ring.values),
    )


def held(ring: Ring) -> jax.Array:
    """Return which places of the ring hold a number (bool ``[W]``): it fills from the first on."""
    return jnp.arange(ring.values.shape[0], dtype=jnp.int32) < ring.count


def mean_and_std(ring: Ring, *, ddof: int) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of what is held; 0 if nothing is.

    Args:
      ring: the numbers.
      ddof: what is taken from their number in the variance: 0 for that of the population, 1 for
        an unbiased estimate.
    """
    # In units of the largest, so that no square overflows or vanishes, whatever their scale is.
    largest = jnp.max(jnp.abs(ring.values))
    unit = jnp.where(largest > 0, largest, 1.0)
    number = ring.count.astype(jnp.float32)
    there, values = held(ring), ring.values / unit
    mean = jnp.sum(jnp.where(there, values, 0.0)) / jnp.maximum(number, 1.0)
    squares = jnp.where(there, jnp.square(values - mean), 0.0)
    std = jnp.sqrt(jnp.sum(squares) / jnp.maximum(number - ddof, 1.0))
    return mean * unit, std * unit


def percentile_of(ring: Ring, percent: ArrayLike) -> jax.Array:
    """Return a percentile, linearly interpolated, of what is held; ``inf`` if nothing is."""
    ordered = jnp.sort(jnp.where(held(ring), ring.values, unlimited()))
    last = jnp.maximum(ring.count - 1, 0)
    rank = jnp.asarray(percent, jnp.float32) / 100.0 * last.astype(jnp.float32)
    low = jnp.minimum(jnp.floor(rank).astype(jnp.int32), last)
    below, above = ordered[low], ordered[jnp.minimum(low + 1, last)]
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    return jnp.where(ring.count > 0, between, unlimited())


def median_and_mad(ring: Ring) -> tuple[jax.Array, jax.Array]:
    """Return the median of what is held, and the median absolute deviation from it."""
    median = percentile_of(ring, 50.0)
    deviations = ring._replace(values=jnp.abs(ring.values - median))
    return median, percentile_of(deviations, 50.0)
