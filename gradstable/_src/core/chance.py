"""Bits for rounding up or down: a number per entry, computed from its position, never stored."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding

from gradstable._src.core.explicit import created_like
from gradstable._src.core.layout import WHOLE, Split

# What to multiply steps and places with, so that the multiples, modulo one, are spread evenly: the
# powers of 1/1.3247 (the plastic ratio) in the first bits, and of other ratios in the last 21.
_PER_STEP = (1546 << 21) | 0x13C6EF
_PER_PLACE = (1167 << 21) | 0x1A36A9


def random_bits(salt: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return 32 random bits for every entry of an array.

    The bits are a hash of the position of an entry, seeded by the salt. XLA computes them where
    they are used, in a ninth of the time of ``jax.random``: rounding needs evenly distributed bits
    that do not repeat, not unpredictable ones.

    Args:
      salt: uint32 scalar, a different one for every array and step.
      shape: the shape of the array.
    """
    bits = _places(shape, None, WHOLE, times=1) ^ jnp.broadcast_to(salt, shape)
    # Wellons' "prospected" hash: every bit of the result depends on every bit of the position.
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x735A2D97)
    return bits ^ (bits >> 15)


def fraction(bits: jax.Array) -> jax.Array:
    """Return the first 24 of 32 bits as a float32 number in [0, 1)."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def spread_bits(count: jax.Array, like: jax.Array, split: Split = WHOLE) -> jax.Array:
    """Return 32 bits for every entry, spread evenly over steps and entries.

    They are not random but a Weyl sequence, which fills its range more evenly than random numbers
    do. So what is rounded up too often is soon rounded down, and rounding adds less noise to a
    moving average. The first 21 bits and the last 21 can be used as two numbers.

    Args:
      count: the number of the step, an integer.
      like: the array.
      split: how it is split, if it is a part: an entry has the bits of its place in the whole, if
        the dimensions are known.
    """

    def create(there: NamedSharding | None) -> jax.Array:
        of_step = lax.broadcast(bits_at(count, jnp.int32(0)), like.shape, out_sharding=there)
        return of_step + _places(like.shape, there, split, times=_PER_PLACE)

    return created_like(like, create)


def bits_at(count: jax.Array, place: jax.Array) -> jax.Array:
    """Return the bits of entries from their places in memory, int32."""
    of_step = count.astype(jnp.uint32) * jnp.uint32(_PER_STEP)
    return of_step + place.astype(jnp.uint32) * jnp.uint32(_PER_PLACE)


def _places(
    shape: tuple[int, ...], there: NamedSharding | None, split: Split, *, times: int
) -> jax.Array:
    """Return the place of each entry in memory, times a number, modulo ``2**32``."""
    whole = split.whole_shape(shape)
    total = lax.full(shape, 0, jnp.uint32, sharding=there)
    for axis, size in enumerate(shape):
        stride = jnp.uint32(math.prod(whole[axis + 1 :]) * times % 2**32)
        if size > 1:
            total += lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=there) * stride
        if split.dims is not None and (names := split.dims[axis]):
            total += lax.axis_index(names).astype(jnp.uint32) * jnp.uint32(size) * stride
    return total
