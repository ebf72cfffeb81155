"""Bits for rounding up or down: a number per entry, computed from its position, never stored."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.explicit import as_laid_out

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
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        if size > 1:
            place += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    bits = place ^ jnp.broadcast_to(salt, shape)
    # Wellons' "prospected" hash: every bit of the result depends on every bit of the position.
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x735A2D97)
    return bits ^ (bits >> 15)


def spread_bits(count: jax.Array, like: jax.Array) -> jax.Array:
    """Return 32 bits for every entry, spread evenly over steps and entries.

    They are not random but a Weyl sequence, which fills its range more evenly than random numbers
    do. So what is rounded up too often is soon rounded down, and rounding adds less noise to a
    moving average. The first 21 bits and the last 21 can be used as two numbers.

    Args:
      count: the number of the step, an integer.
      like: the array.
    """
    shape, there = like.shape, as_laid_out(like)
    of_step = bits_at(count, jnp.zeros((), jnp.int32))
    bits = lax.broadcast(of_step, shape, out_sharding=there)
    for axis, size in enumerate(shape):
        stride = math.prod(shape[axis + 1 :]) * _PER_PLACE % 2**32
        if size > 1:
            places = lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=there)
            bits += places * jnp.uint32(stride)
    return bits


def bits_at(count: jax.Array, place: jax.Array) -> jax.Array:
    """Return the bits of entries from their places in memory, int32."""
    return count.astype(jnp.uint32) * jnp.uint32(_PER_STEP) + place.astype(jnp.uint32) * jnp.uint32(
        _PER_PLACE
    )
