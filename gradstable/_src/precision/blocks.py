"""Numbers in 8 or 16 bits: small floats, scaled by the largest entry of a block.

The bits of a positive float32, read as an integer, count through the numbers in order. Without the
last bits, they count through a coarser grid with ``2**m`` steps between powers of two. A code is
such a count, so encoding takes an integer sum and a shift, without a table or a logarithm.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from gradstable._src.core.chance import fraction
from gradstable._src.core.explicit import is_split, laid_out

BLOCK = 256  # consecutive entries in memory that share a scale

_ONE = 0x3F800000  # the bits of 1.0
_TINY = 2.0**-126  # the smallest normal float32: anything below is zero on many devices


class Grid(NamedTuple):
    """The numbers, from 0 to 1, that entries are rounded to before scaling."""

    mantissa: int  # m, mantissa bits that are kept
    codes: int  # how many numbers are above zero: codes / 2**m powers of two
    signed: bool
    dtype: DTypeLike  # of the codes

    @property
    def dropped(self) -> int:
        """Return how many mantissa bits of a float32 are dropped."""
        return 23 - self.mantissa

    @property
    def first(self) -> int:
        """Return the position just before the smallest number; the last position is that of 1."""
        return (_ONE >> self.dropped) - self.codes

    @property
    def least(self) -> float:
        """Return the smallest number above zero."""
        exponent, part = divmod(self.first + 1, 2**self.mantissa)
        return math.ldexp(1.0 + part / 2**self.mantissa, exponent - 127)


# Spaced 1/16 to 1/8 apart over 16 or 32 powers of two, and 1/2048 to 1/1024 apart over 32.
INT8 = Grid(3, 127, True, jnp.int8), Grid(3, 255, False, jnp.uint8)
INT16 = Grid(10, 2**15 - 1, True, jnp.int16), Grid(11, 2**16 - 1, False, jnp.uint16)


def encode(grid: Grid, x: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the codes of finite float32 numbers, like ``x``, and the scales of their blocks.

    Args:
      grid: the available numbers. In an unsigned grid, negative entries become zero.
      x: float32, of any shape, with at least one entry.
      bits: random, uint32 like ``x``: each entry becomes one of the two numbers next to it, so that
        the mean of the stored value is ``x``. In an unsigned grid, however, a nonzero entry never
        becomes zero. The largest entry of a block is stored exactly.
    """
    negative = lax.bitcast_convert_type(x, jnp.int32) < 0
    size = jnp.abs(x) if grid.signed else jnp.where(negative, jnp.zeros_like(x), x)
    scale = _scales(size)
    share = size / _spread(scale, x)
    # The nearest multiple of 8, which undoes the rounding of the division for stored numbers.
    place = (lax.bitcast_convert_type(share, jnp.int32) + 4) & ~7
    chance = (bits >> (32 - grid.dropped)).astype(jnp.int32)
    code = ((place + chance) >> grid.dropped) - grid.first
    if not grid.signed:
        # Compared as integers, which no device flushes to zero.
        is_zero = lax.bitcast_convert_type(size, jnp.int32) == 0
        return jnp.where(is_zero, 0, jnp.maximum(code, 1)).astype(grid.dtype), scale
    # Between zero and the smallest number: one of these two.
    below = (share > fraction(bits) * grid.least).astype(jnp.int32)
    magnitude = jnp.where(place >> grid.dropped > grid.first, code, below)
    return jnp.where(negative, -magnitude, magnitude).astype(grid.dtype), scale


def decode(grid: Grid, codes: jax.Array, scale: jax.Array) -> jax.Array:
    """Return the stored float32 numbers; encoding them again does not change them."""
    code = codes.astype(jnp.int32)
    size = jnp.abs(code)
    share = lax.bitcast_convert_type((size + grid.first) << grid.dropped, jnp.float32)
    number = jnp.maximum(share * _spread(scale, codes), _TINY)
    number = jnp.where(size > 0, number, jnp.zeros_like(number))
    return jnp.where(code < 0, -number, number)


def _scales(size: jax.Array) -> jax.Array:
    """Return the largest entry of each block."""
    flat = _whole(size).reshape(-1)
    blocks = math.ceil(flat.size / BLOCK)
    padded = jnp.pad(flat, (0, blocks * BLOCK - flat.size)).reshape(blocks, BLOCK)
    return jnp.maximum(jnp.max(padded, axis=1), _TINY)


def _spread(scale: jax.Array, like: jax.Array) -> jax.Array:
    """Return, for every entry of an array, the scale of its block."""
    each = jnp.broadcast_to(scale[:, jnp.newaxis], (scale.size, BLOCK)).reshape(-1)
    return each[: like.size].reshape(like.shape)


def _whole(x: jax.Array) -> jax.Array:
    """Return an array that is not split along explicit mesh axes, since blocks span its parts."""
    if not is_split(x):
        return x
    return jax.sharding.reshard(x, laid_out(x, PartitionSpec(*[None] * x.ndim)))
