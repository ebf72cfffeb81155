"""The trust region of ``govern``: how long a step may be, by what the last one did."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.numerics import increment, unlimited

# One gradient, however broken, must not decide alone.
_MOST = 1.5
_MEMORY = 0.8
# How much of an overshoot is taken back at once.
_CUT = 0.5
# A warm-up from nothing raises the rate by 1 + 1/t per step; this allows the square of that.
_WARM_UP = 2.0
# How much longer than the last step the next one may be.
_SLACK = 2.0
# The smallest RMS that parameters count as, for those that are all zero.
_FLOOR = 0.01


class Law(NamedTuple):
    """The numbers of ``govern``; see its docstring."""

    start: ArrayLike
    growth: ArrayLike
    large: ArrayLike


class Region(NamedTuple):
    """The trust region, and what is known of the last step that moved anything."""

    moves: jax.Array  # shape=(), dtype=jnp.int32, how many there were
    radius: jax.Array  # shape=(), the norm that a step may have
    overshoot: jax.Array  # shape=(), average of how far past the minimum steps went; -1: no change
    descent: jax.Array  # shape=(), |<gradient, step>| of the last step
    length: jax.Array  # shape=(), its norm
    extent: jax.Array  # shape=(), norm of the parameters that it moved


class Reading(NamedTuple):
    """The inner products of one step, before it is shortened."""

    along: jax.Array  # <gradient, last step>
    descent: jax.Array  # <gradient, step>
    length: jax.Array  # the norm of the step
    extent: jax.Array  # the norm of the parameters that it moves
    entries: jax.Array  # how many it moves


def new_region(dtype: DTypeLike) -> Region:
    """Return the trust region of a run that has not begun. No two leaves share a buffer."""

    def zero() -> jax.Array:
        return jnp.zeros((), dtype)

    return Region(jnp.zeros((), jnp.int32), zero(), zero(), zero(), zero(), zero())


def shorten(region: Region, read: Reading, law: Law) -> tuple[jax.Array, Region]:
    """Return the factor for this step, at most 1, and the trust region after it.

    A step that moves nothing, as when a guard inside rejects it, or that is NaN, changes nothing.
    """
    law = Law(*(jnp.asarray(number, region.radius.dtype) for number in law))
    extent = jnp.maximum(read.extent, _FLOOR * jnp.sqrt(read.entries))
    extent = jnp.minimum(extent, unlimited(extent.dtype))
    overshoot, radius = _judge(region, read.along, law)
    radius = jnp.where(region.moves == 0, law.start * extent, radius)
    fits = read.length <= radius
    factor = jnp.where(fits, 1.0, radius / jnp.where(fits, 1.0, read.length))
    moved = (read.length > 0.0) & (factor > 0.0)
    new = Region(
        moves=increment(region.moves),
        radius=radius,
        overshoot=overshoot,
        descent=factor * jnp.abs(read.descent),
        length=jnp.minimum(read.length, radius),
        extent=extent,
    )
    kept = jax.tree.map(lambda now, before: jnp.where(moved, now, before), new, region)
    return jnp.where(jnp.isnan(factor), 1.0, factor), kept


def _judge(region: Region, along: jax.Array, law: Law) -> tuple[jax.Array, jax.Array]:
    """Return overshoot and radius after a look back at the last step, with the new gradient."""
    ratio = along / jnp.where(region.descent > 0.0, region.descent, 1.0)
    ratio = jnp.where(jnp.isnan(ratio), _MOST, jnp.clip(ratio, -_MOST, _MOST))
    overshoot = _MEMORY * region.overshoot + (1.0 - _MEMORY) * ratio
    overshoot = jnp.where(region.moves > 0, overshoot, 0.0)

    too_far = (overshoot > 0.0) & (region.length > law.large * region.extent)
    shrunk = jnp.minimum(region.radius, region.length) * jnp.exp(-_CUT * overshoot)
    moves = region.moves.astype(overshoot.dtype)
    grown = region.radius * jnp.exp(law.growth + _WARM_UP / jnp.maximum(moves, 1.0))
    grown = jnp.maximum(region.radius, jnp.minimum(grown, _SLACK * region.length))
    return overshoot, jnp.where(too_far, shrunk, grown)
