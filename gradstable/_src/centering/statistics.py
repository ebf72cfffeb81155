"""Mean and standard deviation of every unit, for any finite numbers, in three reads.

Values are first divided by a power of two near the largest of their unit, which is exact: no sum
overflows, no square vanishes, and the size of one unit does not affect another. Each read applies
the power in a different form (``1/p``, ``1/2p``, ``1/4p``), since XLA would store anything that
two reads share as a copy of the leaf.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.layout import Within
from gradstable._src.core.numerics import power_of_two, root, saturate

# A spread below a millionth of the mean is rounding: the entries are all the same.
_ROUNDING = 2.0**-20
# Fewer entries have no meaningful spread: without their mean, nothing or one number is left.
_MIN_ENTRIES = 3


class Spread(NamedTuple):
    """Statistics of the units of a leaf; all arrays broadcast against it.

    Attributes:
      sound: bool, whether every entry of the unit is finite.
      power: a power of two ``p`` near the largest entry.
      mean: the mean divided by ``p``; 0 for units of one or two entries.
      std: the standard deviation about ``mean``, divided by ``p``; 0 if all entries are equal.
    """

    sound: jax.Array
    power: jax.Array
    mean: jax.Array
    std: jax.Array


def mean_of(g: jax.Array, within: Within) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return ``(sound, p, mean / p)`` of every unit, in two reads."""
    largest = within.max(jnp.abs(g))
    power = power_of_two(largest)
    # Twice the mean of halves.
    half_sum = within.sum(g * (0.5 / power))
    return jnp.isfinite(largest), power, half_sum * (2.0 / max(1, within.entries))


def spread_of(g: jax.Array, within: Within) -> Spread:
    """Return mean and standard deviation of every unit, in three reads."""
    sound, power, mean = mean_of(g, within)
    if within.entries < _MIN_ENTRIES:
        mean = jnp.zeros_like(mean)
    rest = g * (1.0 / power) - mean
    variance = within.sum(rest * rest) * (1.0 / max(1, within.entries))
    std = root(variance)
    return Spread(sound, power, mean, jnp.where(std > _ROUNDING * jnp.abs(mean), std, 0.0))


def centered(g: jax.Array, mean: jax.Array, power: jax.Array) -> jax.Array:
    """Return ``g - mean``, which can overflow where entries of both signs are huge."""
    return g - saturate(mean * power, g.dtype)


def scores(g: jax.Array, spread: Spread, eps: ArrayLike) -> jax.Array:
    """Return ``(g - mean) / (std + eps)``; zero in units without spread, or not finite."""
    spread_out = spread.std > 0.0
    denominator = spread.std + jnp.asarray(eps, g.dtype) / spread.power
    # Selected before the division too: a discarded value must not make a derivative NaN.
    denominator = jnp.where(spread_out, denominator, jnp.ones_like(denominator))
    factor = jnp.where(spread_out, 1.0 / denominator, 0.0)
    z = (g * (0.25 / spread.power)) * (4.0 * factor) - spread.mean * factor
    return jnp.where(spread.sound, z, 0.0)
