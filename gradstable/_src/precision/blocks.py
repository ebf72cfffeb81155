"""Numbers in 8 or 16 bits: small floats, times the largest entry of a block.

The bits of a positive float32, read as an integer, count through the numbers in order. Without
their last ones they count through those of a coarser grid, with ``2**m`` steps between powers of
two. A code is such a count, so that encoding is a sum and a shift of integers: no table, and no
logarithm.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from gradstable._src.core.explicit import is_split, laid_out

BLOCK = 256  # entries that share a scale, as they come in memory

_ONE = 0x3F800000  # the bits of 1.0
_TINY = 2.0**-126  # the least normal float32: what is below is zero on many devices


class Grid(NamedTuple):
    """The numbers that entries become, before they are multiplied by the scale: 0 and up to 1."""

    mantissa: int  # m, the bits of the mantissa that are kept
    codes: int  # how many numbers above zero there are: codes / 2**m powers of two
    signed: bool
    dtype: DTypeLike  # of the codes

    @property
    def dropped(self) -> int:
        """Return how many bits of the mantissa of a float32 are not kept."""
        return 23 - self.mantissa

    @property
    def first(self) -> int:
        """Return the place before that of the least number; the last place is that of 1."""
        return (_ONE >> self.dropped) - self.codes

    @property
    def least(self) -> float:
        """Return the least number above zero."""
        exponent, part = divmod(self.first + 1, 2**self.mantissa)
        return math.ldexp(1.0 + part / 2**self.mantissa, exponent - 127)


# Numbers 1/16 to 1/8 apart over 16 powers of two, or 32; and 1/2048 to 1/1024 apart over 32.
INT8 = Grid(3, 127, True, jnp.int8), Grid(3, 255, False, jnp.uint8)
INT16 = Grid(10, 2**15 - 1, True, jnp.int16), Grid(11, 2**16 - 1, False, jnp.uint16)


def encode(grid: Grid, x: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the codes of finite float32 numbers, like ``x``, and the scales of their blocks.

    Args:
      grid: the numbers there are. Without a sign, what is negative becomes zero.
      x: float32, of any shape and at least one entry.
      bits: random, uint32 like ``x``: each entry becomes one of the two numbers next to it, so that
        the mean of what is stored is ``x``. But without a sign, what is not zero never becomes
        zero, and the largest entry of a block stays exactly what it is.
    """
    negative = lax.bitcast_convert_type(x, jnp.int32) < 0
    size = jnp.abs(x) if grid.signed else jnp.where(negative, jnp.zeros_like(x), x)
    scale = _scales(size)
    share = size / _spread(scale, x)
    # The nearest multiple of 8: what was stored and divided comes back without its rounding.
    place = (lax.bitcast_convert_type(share, jnp.int32) + 4) & ~7
    chance = (bits >> (32 - grid.dropped)).astype(jnp.int32)
    code = ((place + chance) >> grid.dropped) - grid.first
    if not grid.signed:
        is_zero = lax.bitcast_convert_type(size, jnp.int32) == 0  # no device takes these for zero
        return jnp.where(is_zero, 0, jnp.maximum(code, 1)).astype(grid.dtype), scale
    # Between zero and the least number: one of these two.
    fraction = (bits >> 8).astype(jnp.float32) * 2.0**-24
    below = (share > fraction * grid.least).astype(jnp.int32)
    magnitude = jnp.where(place >> grid.dropped > grid.first, code, below)
    return jnp.where(negative, -magnitude, magnitude).astype(grid.dtype), scale


def decode(grid: Grid, codes: jax.Array, scale: jax.Array) -> jax.Array:
    """Return the float32 numbers that were stored; encoded again, they stay what they are."""
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
    """Return the scale of its block for every entry of an array."""
    each = jnp.broadcast_to(scale[:, jnp.newaxis], (scale.size, BLOCK)).reshape(-1)
    return each[: like.size].reshape(like.shape)


def _whole(x: jax.Array) -> jax.Array:
    """Return an array that no mesh with explicit axes splits: blocks run across its parts."""
    if not is_split(x):
        return x
    return jax.sharding.reshard(x, laid_out(x, PartitionSpec(*[None] * x.ndim)))
