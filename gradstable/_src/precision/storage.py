"""How a moment is stored between steps."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.chance import random_bits
from gradstable._src.core.numerics import wide
from gradstable._src.core.select import select_finite
from gradstable._src.precision.blocks import INT8, INT16, decode, encode

Storage: TypeAlias = Literal["int8", "int16", "bfloat16"]

_GRIDS = {"int8": INT8, "int16": INT16}
_LARGEST_BFLOAT16 = 0x7F7F0000


class Packed(NamedTuple):
    """A stored leaf."""

    stored: jax.Array  # in the shape of the leaf: codes, bfloat16, or the leaf itself
    scale: jax.Array  # float32, shape=(blocks,) if there are codes, otherwise ()


def start(to: Storage, signed: bool, min_size: int, leaf: jax.Array) -> Packed:
    """Return the stored form of a leaf of a new state: float32 or wider if it is small."""
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return Packed(leaf, jnp.zeros((), jnp.float32))
    x = leaf.astype(wide(leaf.dtype))
    if x.size < min_size:
        return Packed(x, jnp.zeros((), jnp.float32))
    # Behind a barrier, or XLA would compute the blocks of a constant while it compiles.
    x = lax.optimization_barrier(x.astype(jnp.float32))
    # Averages start at zero, which needs no random bits.
    none = jnp.zeros_like(x, jnp.uint32)
    if to == "bfloat16":
        return Packed(_round_bfloat16(x, none), jnp.zeros((), jnp.float32))
    return Packed(*encode(_GRIDS[to][not signed], x, none))


def unpack(to: Storage, signed: bool, stored: jax.Array, scale: jax.Array) -> jax.Array:
    """Return the numbers of a leaf, in float32 unless it is stored as it is."""
    if scale.ndim and to != "bfloat16":
        return decode(_GRIDS[to][not signed], stored, scale)
    return stored.astype(jnp.float32) if stored.dtype == jnp.bfloat16 else stored


def pack(
    to: Storage,
    signed: bool,
    new: jax.Array,
    old: jax.Array,
    stored: jax.Array,
    scale: jax.Array,
    salt: jax.Array,
) -> Packed:
    """Return the stored form of a leaf; an entry that is not finite keeps its old value.

    Args:
      to: the storage format.
      signed: whether it has entries of both signs.
      new: its new numbers.
      old: its old numbers, as returned by ``unpack``.
      stored: the stored form of ``old``.
      scale: the scales of the blocks.
      salt: random uint32 scalar.
    """
    x = select_finite(jnp.asarray(True), jnp.asarray(new), old)
    if scale.ndim and to != "bfloat16":
        return Packed(*encode(_GRIDS[to][not signed], x, random_bits(salt, x.shape)))
    if stored.dtype == jnp.bfloat16:
        return Packed(_round_bfloat16(x, random_bits(salt, x.shape)), scale)
    return Packed(x, scale)


def _round_bfloat16(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Round each number to one of its two neighbors, so that the mean is the number."""
    as_integer = lax.bitcast_convert_type(x, jnp.uint32)
    sign = as_integer & jnp.uint32(0x80000000)
    size = (as_integer ^ sign) + (bits >> 16)
    kept = jnp.minimum(size & jnp.uint32(0xFFFF0000), jnp.uint32(_LARGEST_BFLOAT16))
    return lax.bitcast_convert_type(sign | kept, jnp.float32).astype(jnp.bfloat16)
