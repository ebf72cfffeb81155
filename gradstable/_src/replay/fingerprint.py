"""A hash of all bits of a tree, which does not depend on the order in which they are read."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.equations import is_array
from gradstable._src.core.keys import is_key

# Odd, so that multiplication loses no bit: the constants of MurmurHash3, and the golden ratio.
_MIX = ((0x85EBCA6B, 0xC2B2AE35), (0xCC9E2D51, 0x1B873593))
_OF_PLACE, _OF_LEAF = 0x9E3779B9, 0x27D4EB2F


def fingerprint(tree: Any) -> jax.Array:
    r"""Return a hash of all bits of a tree: equal trees have equal ones, on any device.

    Use it to see whether two runs of the same step, or the copies of parameters on several devices,
    are the same *to the bit*. It reads every array once, returns two numbers, and copies nothing to
    the host, so that it can be part of a compiled step.

    .. math:: h_k = \sum_i m_k\left(x_i \oplus i \cdot \phi\right) \bmod 2^{32}, \qquad k = 1, 2

    where :math:`x_i` are the bits of entry ``i``, :math:`\phi` is an odd number, and ``m`` mixes
    them as MurmurHash3 does. Sums of integers that wrap around do not depend on their order, as
    those of floating-point numbers do: a sharded array has the hash of the whole. A single flipped
    bit always changes the hash; other changes go unseen with a probability of about
    :math:`2^{-64}`.

    ``0.0`` and ``-0.0`` differ, and so do NaNs of different bits. Inside ``jax.shard_map`` it is
    the hash of the part that a device holds, numbered from its own beginning: ``jax.lax.psum`` of
    it is a hash of all parts, but not that of the whole, and it does not see that two parts were
    exchanged. Outside, it is that of the whole.

    Args:
      tree: tree of arrays of any dtype, and of keys; other leaves are ignored. For a hash of every
        leaf, use ``jax.tree.map(gs.fingerprint, tree)``.

    Returns:
      An array of two ``uint32``.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> params = {"w": jnp.arange(1000.0), "b": jnp.zeros(3, jnp.bfloat16)}
      >>> one = gs.fingerprint(params)
      >>> params["w"] = params["w"].at[7].add(1e-6)
      >>> bool((gs.fingerprint(params) == one).all())
      False

    Source:
      Ours. The mixing is that of Appleby, MurmurHash3, 2011.
    """
    total = jnp.zeros((2,), jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        if is_array(leaf):
            total = total + _of_leaf(_words(leaf), number)
    return total


def _of_leaf(words: jax.Array, number: int) -> jax.Array:
    salt = jnp.uint32(number * _OF_LEAF % 2**32)
    spread = words ^ (_index(words.shape) * jnp.uint32(_OF_PLACE) + salt)
    mixed = lax.reduce(  # both in one loop, which reads the array once
        tuple(_mixed(spread, *constants) for constants in _MIX),
        (jnp.uint32(0), jnp.uint32(0)),
        lambda one, other: tuple(x + y for x, y in zip(one, other, strict=True)),
        tuple(range(words.ndim)),
    )
    # So that a leaf without entries, and how entries are divided among leaves, count as well.
    length = _mixed(jnp.uint32(math.prod(words.shape) % 2**32) ^ salt, *_MIX[0])
    return jnp.stack(mixed) + length


def _mixed(x: jax.Array, first: int, second: int) -> jax.Array:
    x = (x ^ lax.shift_right_logical(x, jnp.uint32(16))) * jnp.uint32(first)
    x = (x ^ lax.shift_right_logical(x, jnp.uint32(13))) * jnp.uint32(second)
    return x ^ lax.shift_right_logical(x, jnp.uint32(16))


def _index(shape: tuple[int, ...]) -> jax.Array:
    """Return the number of each entry, without an array of them in memory."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for dim in reversed(range(len(shape))):
        here = lax.broadcasted_iota(jnp.uint32, shape, dim)
        index = index + here * jnp.uint32(stride % 2**32)
        stride *= shape[dim]
    return index


def _words(leaf: Any) -> jax.Array:
    """Return the bits of an array as 32-bit words."""
    array = jnp.asarray(leaf)
    if is_key(array):
        array = jax.random.key_data(array)
    if jnp.iscomplexobj(array):
        array = jnp.stack([array.real, array.imag], axis=-1)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    bits = jnp.finfo(array.dtype).bits if is_float else jnp.iinfo(array.dtype).bits
    if bits < 8:  # exact in more bits
        array, bits = array.astype(jnp.float32 if is_float else jnp.int32), 32
    if bits == 64:
        return lax.bitcast_convert_type(array, jnp.uint32)
    return lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)
