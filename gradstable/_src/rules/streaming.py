"""Streaming median and median absolute deviation, which no single number can move much."""

import jax
import jax.numpy as jnp

# How far one step can move the center, in spreads times the rate: fast enough to follow a
# drift of 1 % per step, too slow to be dragged along by a burst.
_CENTER_GAIN = 1.5


def follow(
    center: jax.Array, spread: jax.Array, excess: jax.Array, gain: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return center and spread of a stream after one more number.

    They learn on which side of the center it lies, and whether it lies outside the spread, but
    not how far: a lasting change widens the spread geometrically, and a spike moves both by a
    fixed step.

    Args:
      center: estimate of the median.
      spread: estimate of the median absolute deviation from it, > 0.
      excess: the number minus the center.
      gain: how much of a step to make, in (0, 1].
    """
    step = _CENTER_GAIN * gain * jnp.clip(excess, -spread, spread)
    grow = jnp.where(jnp.abs(excess) > spread, gain, -gain)
    return center + step, spread * jnp.exp(grow)


def finite_log(norm: jax.Array) -> jax.Array:
    """Return the log of a norm; that of 0 and of infinity is finite, too."""
    limits = jnp.finfo(norm.dtype)
    return jnp.log(jnp.clip(norm, limits.tiny, limits.max))
