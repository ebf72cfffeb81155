"""Overflow-safe L2 norms: float32 whatever the dtype, right from 1e-45 to 3e38.

Squaring is where norms fail: in float32 it overflows above 1.8e19 and underflows below
1e-19, in float16 above 255. So the squares are summed once in float32, and that is all a
healthy step pays. Only where the total is not finite, or tiny, a ``lax.switch`` reads the
gradients again, multiplied by a power of two (exact; the idea is Blue's, 1978, as in
LAPACK's ``dnrm2``). It also reads subnormal numbers by their bits, since XLA flushes them to
zero in arithmetic.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradstable._core.layout import AxisName, Split, splits_of, together
from gradstable._core.numerics import wide
from gradstable._core.paths import path_keys
from gradstable._core.select import run_branch
from gradstable._core.types import Measure

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

# A stack of them is copied and read at once, so it stays small enough for a cache.
_STACK_SIZE = 1 << 17


class _Shift(NamedTuple):
    """What entries are multiplied by, and what the bits of subnormal ones."""

    factor: jax.Array
    per_bit: jax.Array

    @classmethod
    def to(cls, huge: jax.Array) -> "_Shift":
        """Return the shift down for huge norms, else that up."""
        # Looked up at run time: XLA would merge constant factors, (c x)^2 into c^2 x^2, and
        # overflow.
        table = jnp.asarray([[_UP, _PER_SUBNORMAL_BIT * _UP], [_DOWN, 0.0]], jnp.float32)
        chosen = table[huge.astype(jnp.int32)]
        return cls(chosen[0], chosen[1])


_Reduce = Callable[[jax.Array, _Shift | None], jax.Array]


class _Norms(NamedTuple):
    norm: jax.Array
    leaf_norms: jax.Array
    nonfinite: jax.Array


def measure(updates: object, *, axis_name: AxisName = None) -> Measure:
    """Read the gradients once and returns the few numbers that rules decide on.

    Args:
      updates: a tree of floating-point or complex arrays.
      axis_name: as for ``gs.guard``; every device then gets the same ``Measure``.

    Returns:
      A ``Measure`` with ``L`` the number of leaves.
    """
    splits = splits_of(updates, axis_name)
    flat = jax.tree_util.tree_leaves_with_path(updates)
    leaves = [_as_real(leaf) for _, leaf in flat]
    parts = zip(leaves, splits, strict=True)
    leaf_sizes = jnp.asarray([leaf.size * split.parts for leaf, split in parts], jnp.float32)
    if not leaves:
        return Measure(
            norm=jnp.zeros((), jnp.float32),
            leaf_norms=jnp.zeros((0,), jnp.float32),
            nonfinite=jnp.zeros((0,), jnp.bool_),
            leaf_sizes=leaf_sizes,
        )

    # Stacked once for both ways: to hand a thousand leaves to a branch takes long to compile.
    stacks = _Stacks.of(leaves, splits, [_place(path) for path, _ in flat])
    sums = stacks.sums(_sum_squares)
    total = jnp.sum(sums)
    huge = ~jnp.isfinite(total)

    def ordinary() -> _Norms:
        nonfinite = jnp.zeros(sums.shape, jnp.bool_)
        return _Norms(norm=jnp.sqrt(total), leaf_norms=jnp.sqrt(sums), nonfinite=nonfinite)

    def shifted() -> _Norms:
        # After the shift no finite entry overflows: a sum that is not finite tells of one
        # that never was.
        moved = stacks.sums(_sum_shifted_squares, _Shift.to(huge))
        norm, leaf_norms = jnp.sqrt(jnp.sum(moved)), jnp.sqrt(moved)
        down = jnp.where(jnp.isfinite(sums), jnp.sqrt(sums), leaf_norms * _UP)
        return _Norms(
            norm=jnp.where(huge, norm * _UP, _put_down(norm)),
            leaf_norms=jnp.where(huge, down, _put_down(leaf_norms)),
            nonfinite=~jnp.isfinite(moved),
        )

    rare = huge | (total < _TINY)
    # The last is never taken. Of two branches without a loop XLA may make a select, and run both.
    norms = run_branch(rare.astype(jnp.int32), (ordinary, shifted, ordinary))
    keys = path_keys([path for path, _ in flat])
    return Measure(*norms, leaf_sizes=leaf_sizes, leaf_keys=keys)


def global_norm(tree: object, *, axis_name: AxisName = None) -> jax.Array:
    r"""Return the L2 norm of all entries of a tree, computed safely in float32.

    Use it wherever you would use ``optax.global_norm``: that one squares and sums in the
    dtype of the leaves, and so returns ``inf`` for float16 gradients above 255 or float32
    ones above 1.8e19, zero for small ones, and about half of the truth for thousands of
    bfloat16 leaves.

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
    return measure(tree, axis_name=axis_name).norm


def sums_of_squares(leaves: Sequence[jax.Array], splits: Sequence[Split]) -> jax.Array:
    """Return the plain sum of squares of each array, float32 ``[L]``; it may overflow.

    Args:
      leaves: the arrays.
      splits: how each is split; the sum is that over all devices.
    """
    if not leaves:
        return jnp.zeros((0,), jnp.float32)
    nowhere = ("",) * len(leaves)
    return _Stacks.of([_as_real(leaf) for leaf in leaves], splits, nowhere).sums(_sum_squares)


class _Stacks(NamedTuple):
    """Leaves as arrays ``[k, *shape]``: small ones of one kind are stacked and reduced together."""

    arrays: list[jax.Array]
    splits: list[Split]
    tree_order: np.ndarray

    @classmethod
    def of(
        cls, leaves: Sequence[jax.Array], splits: Sequence[Split], places: Sequence[str]
    ) -> "_Stacks":
        """Stack leaves, each into one array only."""
        kinds: dict[object, list[list[int]]] = {}
        for index, (leaf, split, place) in enumerate(zip(leaves, splits, places, strict=True)):
            # Only what is sharded alike may be stacked, or XLA would move it between devices. Types
            # tell so on a mesh with explicit axes; elsewhere the same place in every layer does.
            alike = (jax.typeof(leaf), split, place)
            kind = alike if leaf.size <= _STACK_BELOW else index
            stacks = kinds.setdefault(kind, [[]])
            if (len(stacks[-1]) + 1) * leaf.size > _STACK_SIZE:
                stacks.append([])
            stacks[-1].append(index)
        groups = [stack for stacks in kinds.values() for stack in stacks if stack]
        rows = [[lax.expand_dims(leaves[i], (0,)) for i in indices] for indices in groups]
        arrays = [each[0] if len(each) == 1 else lax.concatenate(each, 0) for each in rows]
        of_stacks = [splits[indices[0]] for indices in groups]
        return cls(arrays, of_stacks, np.argsort(np.concatenate(groups)))

    def sums(self, reduce: _Reduce, shift: _Shift | None = None) -> jax.Array:
        """Sum ``reduce: ([k, *shape], shift) -> [k]`` over all devices; return float32 ``[L]``."""
        reduced: list[jax.Array] = []
        last: dict[Split, jax.Array] = {}
        for stack, split in zip(self.arrays, self.splits, strict=True):
            own = shift
            if shift is not None and split in last:
                # A sum of squares is never -1, but XLA cannot know: each reduction waits for the
                # last, so that memory of the size of a leaf is needed only once.
                waited = jnp.where(last[split][0] == -1.0, 0.0, shift.factor)
                own = shift._replace(factor=waited)
            last[split] = reduce(stack, own).astype(jnp.float32)
            reduced.append(last[split])
        return jnp.concatenate(together(reduced, self.splits))[self.tree_order]


def _sum_squares(stack: jax.Array, shift: _Shift | None) -> jax.Array:
    values = stack.astype(wide(stack.dtype))
    if shift is not None:
        values = values * shift.factor.astype(values.dtype)
    return jnp.sum(values * values, axis=tuple(range(1, stack.ndim)))


def _sum_shifted_squares(stack: jax.Array, shift: _Shift | None) -> jax.Array:
    values = stack.astype(wide(stack.dtype))
    if values.dtype != jnp.float32 or shift is None:
        return _sum_squares(values, shift)
    bits = lax.bitcast_convert_type(values, jnp.int32) & 0x7FFFFFFF
    subnormal = bits.astype(jnp.float32) * shift.per_bit
    shifted = values * shift.factor
    return _sum_squares(jnp.where(bits < _MIN_NORMAL_BITS, subnormal, shifted), None)


def _put_down(norms: jax.Array) -> jax.Array:
    """Return ``norms * 2**-90``; a subnormal result is put together from its bits."""
    bits = jnp.round(norms * (_DOWN / _PER_SUBNORMAL_BIT)).astype(jnp.int32)
    subnormal = lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(norms < _MIN_NORMAL * _UP, subnormal, norms * _DOWN)


def _place(path: tuple[object, ...]) -> str:
    """Return where in a layer a leaf stands: its path without numbers."""
    return re.sub(r"\d+", "", jax.tree_util.keystr(path))


def _as_real(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf
