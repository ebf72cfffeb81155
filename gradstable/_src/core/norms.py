"""Overflow-safe L2 norms: float32 or wider whatever the dtype, correct over its whole range.

Squaring is where norms fail: in float32 it overflows above 1.8e19 and underflows below
1e-19, and in float16 it overflows above 255. So the squares are summed once in float32, and a
healthy step costs no more than that. Only where the total is not finite, or tiny, does a
``lax.switch`` read the gradients again, multiplied by a power of two (exact; the idea is
Blue's, 1978, as in LAPACK's ``dnrm2``). It also reads subnormal numbers by their bits, since XLA
flushes them to zero in arithmetic. If a leaf is float64, everything is done in float64.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.axis_name import AxisName, Names
from gradstable._src.core.derivatives import constant
from gradstable._src.core.layout import Split, splits_of
from gradstable._src.core.numerics import largest_norm_in, root, widest
from gradstable._src.core.paths import path_keys
from gradstable._src.core.select import run_branch
from gradstable._src.core.squares import (
    Shift,
    put_down,
    range_of,
    sum_shifted_squares,
    sum_squares,
)
from gradstable._src.core.stacks import Stacks
from gradstable._src.core.types import Measure

# A leaf above this fraction of the tree is read in long rows only, whose sums take no memory.
_LARGE = 1 / 75


class _Norms(NamedTuple):
    norm: jax.Array
    leaf_norms: jax.Array
    nonfinite: jax.Array


def measure(updates: object, *, axis_name: AxisName = None, apart: Names = ()) -> Measure:
    """Read the gradients once and return the few numbers that rules decide on.

    Args:
      updates: a tree of floating-point or complex arrays.
      axis_name: as for ``gs.guard``; every device then gets the same ``Measure``.
      apart: mesh axes along which each device has gradients of its own, to be measured apart.

    Returns:
      A ``Measure`` with ``L`` the number of leaves, a constant to any derivative.
    """
    return _measure(constant(updates), axis_name, apart)


def _measure(updates: object, axis_name: AxisName, apart: Names = ()) -> Measure:
    splits = splits_of(updates, axis_name, apart=apart)
    flat = jax.tree_util.tree_leaves_with_path(updates)
    leaves = [jnp.asarray(leaf) for _, leaf in flat]
    dtype = widest(leaves)
    parts = zip(leaves, splits, strict=True)
    leaf_sizes = jnp.asarray([leaf.size * split.parts for leaf, split in parts], dtype)
    if not leaves:
        return Measure(
            norm=jnp.zeros((), dtype),
            leaf_norms=jnp.zeros((0,), dtype),
            nonfinite=jnp.zeros((0,), jnp.bool_),
            leaf_sizes=leaf_sizes,
        )

    places = [place_of(path) for path, _ in flat]
    stacks = Stacks.of(leaves, splits, places)
    sums = stacks.sums(lambda x, _: sum_squares(x, dtype), dtype)
    total = jnp.sum(sums)
    huge = ~lax.is_finite(total)
    plain = _Norms(root(total), root(sums), jnp.zeros_like(sums, jnp.bool_))

    is_large = _large_among(leaves)

    def ordinary() -> _Norms:
        return plain

    def shifted() -> _Norms:
        # After the shift no finite entry overflows: if a sum is not finite, an entry was not
        # finite to begin with.
        shift = Shift.to(huge, dtype)

        def reduce(stack: jax.Array, before: jax.Array | None) -> jax.Array:
            return sum_shifted_squares(stack, shift.after(before), large=is_large(stack))

        moved = stacks.sums(reduce, dtype)
        up = range_of(dtype).up
        norm, leaf_norms = root(jnp.sum(moved)), root(moved)
        down = jnp.where(jnp.isfinite(sums), plain.leaf_norms, leaf_norms * up)
        return _Norms(
            norm=jnp.where(huge, norm * up, put_down(norm)),
            leaf_norms=jnp.where(huge, down, put_down(leaf_norms)),
            nonfinite=~jnp.isfinite(moved),
        )

    rare = huge | (total < range_of(dtype).tiny)
    # The last is never taken. XLA can turn two branches without a loop into a select and run both.
    norms = run_branch(rare.astype(jnp.int32), (ordinary, shifted, ordinary))
    keys = path_keys([path for path, _ in flat])
    limits = None
    if dtype != jnp.float32:
        limits = jnp.asarray([largest_norm_in(leaf.dtype) for leaf in leaves], dtype)
    return Measure(*norms, leaf_sizes=leaf_sizes, leaf_keys=keys, limits=limits)


def _large_among(leaves: Sequence[jax.Array]) -> Callable[[jax.Array], bool]:
    entries = sum(leaf.size for leaf in leaves)
    return lambda array: array.size > _LARGE * entries


def global_norm(tree: object, *, axis_name: AxisName = None) -> jax.Array:
    r"""Return the L2 norm of all entries of a tree, computed safely in float32.

    Use it in place of ``optax.global_norm``, which squares and sums in the dtype of the
    leaves, and so returns ``inf`` for float16 gradients above 255 or float32 ones above 1.8e19,
    zero for small ones, and about half the true value for thousands of bfloat16 leaves.

    .. math:: \|g\| = \sqrt{\textstyle\sum_{leaves}\sum_i |g_i|^2}

    Args:
      tree: a tree of floating-point (or complex) arrays; ``None`` is skipped.
      axis_name: mesh axes over which the leaves are split, as for ``gs.guard``. Default ``None``:
        the leaves are whole, or ``jit`` shards them, which needs no name.

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
    return _measure(tree, axis_name).norm


def sums_of_squares(leaves: Sequence[jax.Array], splits: Sequence[Split]) -> jax.Array:
    """Return the plain sum of squares of each array, ``[L]`` in their widest dtype.

    It may overflow.

    Args:
      leaves: the arrays.
      splits: how each is split; sums are over all devices.
    """
    dtype = widest(leaves)
    if not leaves:
        return jnp.zeros((0,), dtype)
    nowhere = ("",) * len(leaves)
    stacks = Stacks.of([jnp.asarray(leaf) for leaf in leaves], splits, nowhere)
    return stacks.sums(lambda x, _: sum_squares(x, dtype), dtype)


def place_of(path: tuple[object, ...]) -> str:
    """Return the place of a leaf within its layer: its path without numbers."""
    return re.sub(r"\d+", "", jax.tree_util.keystr(path))
