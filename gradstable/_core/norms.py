"""Overflow-safe L2 norms: float32 whatever the dtype, right from 1e-45 to 3e38.

Squaring is where norms fail: in float32 it overflows above 1.8e19 and underflows below
1e-19, in float16 above 255. So the squares are summed once in float32, and that is all a
healthy step pays. Only where the total is not finite, or tiny, a ``lax.switch`` reads the
gradients again, multiplied by a power of two (exact; the idea is Blue's, 1978, as in
LAPACK's ``dnrm2``). The way for tiny ones also reads subnormal numbers by their bits, since
XLA flushes them to zero in arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable._core.numerics import wide
from gradstable._core.select import run_branch
from gradstable._core.types import Measure

AxisName = str | Sequence[str] | None

# A sum of squares in [_TINY, inf) is accurate: what underflowed is below 2**-126 an entry,
# so even 2**42 entries lose at most one part in 2**20.
_TINY = 2.0**-64
# One shift each way covers the rest: tiny norms lie in [2**-149, 2**-32], huge ones in
# [2**63, 2**128]; multiplied by 2**90 or 2**-90, both are squared and summed safely.
_UP, _DOWN = 2.0**90, 2.0**-90
_MIN_NORMAL = 2.0**-126
_MIN_NORMAL_BITS = 0x00800000
_PER_SUBNORMAL_BIT = 2.0**-149
# Leaves up to this size are stacked with others of their type before they are reduced: a
# thousand small reductions are slow to compile. A larger leaf would cost memory for the copy.
_STACK_BELOW = 1 << 14

_Reduce = Callable[[jax.Array, jax.Array | None], jax.Array]


class _Norms(NamedTuple):
    norm: jax.Array
    leaf_norms: jax.Array
    nonfinite: jax.Array


def measure(updates: object, *, axis_name: AxisName = None) -> Measure:
    """Read the gradients once and returns the few numbers that rules decide on.

    Args:
      updates: a tree of floating-point or complex arrays.
      axis_name: mesh or ``vmap`` axes over which the leaves are sharded, as for
        ``jax.lax.psum``; every shard then gets the same ``Measure``.

    Returns:
      A ``Measure`` with ``L`` the number of leaves.
    """
    leaves = [_as_real(leaf) for leaf in jax.tree.leaves(updates)]
    leaf_sizes = jnp.asarray([leaf.size for leaf in leaves], jnp.float32)
    if axis_name is not None:
        leaf_sizes = leaf_sizes * lax.psum(1, axis_name)
    if not leaves:
        return Measure(
            norm=jnp.zeros((), jnp.float32),
            leaf_norms=jnp.zeros((0,), jnp.float32),
            nonfinite=jnp.zeros((0,), jnp.bool_),
            leaf_sizes=leaf_sizes,
        )

    def sums_of(reduce: _Reduce, shift: jax.Array | None = None) -> jax.Array:
        sums = _per_leaf(reduce, leaves, shift)
        return sums if axis_name is None else lax.psum(sums, axis_name)

    sums = sums_of(_sum_squares)
    total = jnp.sum(sums)
    way = jnp.where(jnp.isfinite(total), jnp.where(total < _TINY, 2, 0), 1)
    # Looked up at run time: XLA would merge constant factors, (c x)^2 into c^2 x^2, and overflow.
    shift = jnp.asarray([1.0, _DOWN, _UP], jnp.float32)[way]
    unshift = jnp.asarray([1.0, _UP, _DOWN], jnp.float32)[way]

    def ordinary() -> _Norms:
        nonfinite = jnp.zeros(sums.shape, jnp.bool_)
        return _Norms(norm=jnp.sqrt(total), leaf_norms=jnp.sqrt(sums), nonfinite=nonfinite)

    def huge() -> _Norms:
        # After the shift no finite entry overflows: a sum that is not finite tells of one
        # that never was.
        shifted = sums_of(_sum_squares, shift)
        leaf_norms = jnp.sqrt(shifted) * unshift
        return _Norms(
            norm=jnp.sqrt(jnp.sum(shifted)) * unshift,
            leaf_norms=jnp.where(jnp.isfinite(sums), jnp.sqrt(sums), leaf_norms),
            nonfinite=~jnp.isfinite(shifted),
        )

    def tiny() -> _Norms:
        shifted = sums_of(_sum_lifted_squares, shift)
        return _Norms(
            norm=_put_down(jnp.sqrt(jnp.sum(shifted)), unshift),
            leaf_norms=_put_down(jnp.sqrt(shifted), unshift),
            nonfinite=jnp.zeros(sums.shape, jnp.bool_),
        )

    return Measure(*run_branch(way, (ordinary, huge, tiny)), leaf_sizes=leaf_sizes)


def global_norm(tree: object, *, axis_name: AxisName = None) -> jax.Array:
    r"""Return the L2 norm of all entries of a tree, computed safely in float32.

    Use it wherever you would use ``optax.global_norm``: that one squares and sums in the
    dtype of the leaves, and so returns ``inf`` for float16 gradients above 255 or float32
    ones above 1.8e19, zero for small ones, and about half of the truth for thousands of
    bfloat16 leaves.

    .. math:: \|g\| = \sqrt{\textstyle\sum_{leaves}\sum_i |g_i|^2}

    Args:
      tree: a tree of floating-point (or complex) arrays; ``None`` is skipped.
      axis_name: mesh or ``vmap`` axes over which the leaves are sharded, inside
        ``jax.shard_map`` or ``jax.vmap``. Default ``None``: the leaves are whole, or ``jit``
        shards them, which needs no name.

    Returns:
      A float32 scalar, within 1e-5 (relative) of the exact norm from 1e-45 to 3e38; ``nan``
      if an entry is NaN, ``inf`` if one is infinite or the norm exceeds float32.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> float(gs.global_norm({"w": jnp.array([300.0, 400.0], jnp.float16)}))
      500.0

    Source:
      Blue, "A portable Fortran program to find the Euclidean norm of a vector", 1978.
    """
    return measure(tree, axis_name=axis_name).norm


def sums_of_squares(leaves: Sequence[jax.Array]) -> jax.Array:
    """Return the plain sum of squares of each array, float32 ``[L]``; it may overflow."""
    if not leaves:
        return jnp.zeros((0,), jnp.float32)
    return _per_leaf(_sum_squares, [_as_real(leaf) for leaf in leaves], None)


def _per_leaf(reduce: _Reduce, leaves: Sequence[jax.Array], shift: jax.Array | None) -> jax.Array:
    """Apply ``reduce: ([k, *shape], shift) -> [k]`` to all leaves; return float32 ``[L]``.

    Small leaves of one type are stacked and reduced together.
    """
    groups: dict[object, list[int]] = {}
    for index, leaf in enumerate(leaves):
        # The type tells shape, dtype and sharding: only leaves that share it can be stacked.
        kind = jax.typeof(leaf) if leaf.size <= _STACK_BELOW else index
        groups.setdefault(kind, []).append(index)
    reduced: list[jax.Array] = []
    for indices in groups.values():
        first = leaves[indices[0]]
        stack = first[None] if len(indices) == 1 else jnp.stack([leaves[i] for i in indices])
        if reduced and shift is not None:
            # A sum of squares is never -1, but XLA cannot know: each reduction waits for the
            # last, so that memory of the size of a leaf is needed only once.
            shift = jnp.where(reduced[-1][0] == -1.0, 0.0, shift)
        reduced.append(reduce(stack, shift).astype(jnp.float32))
    tree_order = np.argsort(np.concatenate(list(groups.values())))
    return jnp.concatenate(reduced)[tree_order]


def _sum_squares(stack: jax.Array, shift: jax.Array | None) -> jax.Array:
    values = stack.astype(wide(stack.dtype))
    if shift is not None:
        values = values * shift.astype(values.dtype)
    return jnp.sum(values * values, axis=tuple(range(1, stack.ndim)))


def _sum_lifted_squares(stack: jax.Array, shift: jax.Array | None) -> jax.Array:
    values = stack.astype(wide(stack.dtype))
    if values.dtype != jnp.float32 or shift is None:
        return _sum_squares(values, shift)
    bits = lax.bitcast_convert_type(values, jnp.int32) & 0x7FFFFFFF
    subnormal = bits.astype(jnp.float32) * (_PER_SUBNORMAL_BIT * _UP)
    shifted = values * shift
    return _sum_squares(jnp.where(bits < _MIN_NORMAL_BITS, subnormal, shifted), None)


def _put_down(norms: jax.Array, unshift: jax.Array) -> jax.Array:
    """Return ``norms * 2**-90``; a subnormal result is put together from its bits."""
    bits = jnp.round(norms * (_DOWN / _PER_SUBNORMAL_BIT)).astype(jnp.int32)
    subnormal = lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(norms < _MIN_NORMAL * _UP, subnormal, norms * unshift)


def _as_real(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf
