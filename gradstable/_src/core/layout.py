"""How leaves are laid out on a mesh inside ``jax.shard_map``: their splits, and sums across it.

There a function sees the part of a leaf that one device holds. Under ``jit`` it sees whole leaves,
whatever their shardings, and nothing in this module has any effect.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.axis_name import (
    AxisName,
    Names,
    as_names,
    check_axis_name,
    is_inside,
    is_spec,
    names_by_dim,
)
from gradstable._src.core.manual import check_all_named, check_bound, varying
from gradstable._src.core.units import Units, unit_axes


class Split(NamedTuple):
    """How one leaf is split.

    Attributes:
      names: the mesh axes over which it is split.
      dims: the same for each of its dimensions; ``None`` where only the names are known.
    """

    names: Names = ()
    dims: tuple[Names, ...] | None = None

    @property
    def parts(self) -> int:
        """Into how many parts the leaf is split."""
        return _size(self.names)

    def over(self, dims: Sequence[int], ndim: int) -> Names:
        """Return the mesh axes over which some of the dimensions are split."""
        if not self.names or not dims:
            return ()
        if self.dims is not None:
            return tuple(name for dim in dims for name in self.dims[dim])
        if len(dims) == ndim:
            return self.names
        msg = (
            "axis_name must say which dimensions of a leaf are split, since only some of them lie "
            f"within a unit: pass its PartitionSpecs instead of {self.names}, as in in_specs of "
            "jax.shard_map"
        )
        raise ValueError(msg)

    def whole_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the whole leaf, from that of a part."""
        if self.dims is None:
            return shape
        return tuple(size * _size(names) for size, names in zip(shape, self.dims, strict=True))

    def take(self, whole: jax.Array) -> jax.Array:
        """Return this device's part of an array whose dimensions are the leaf's, or of size 1."""
        if self.dims is None or not self.names:
            return whole
        for dim, names in enumerate(self.dims):
            if names and whole.shape[dim] > 1:
                size = whole.shape[dim] // _size(names)
                start = lax.axis_index(names) * size
                whole = lax.dynamic_slice_in_dim(whole, start, size, dim)
        return whole

    def gather(self, part: jax.Array) -> jax.Array:
        """Return the whole leaf, on every device."""
        for dim, names in enumerate(self.dims_of(part.ndim)):
            if names:
                part = lax.all_gather(part, names, axis=dim, tiled=True)
        return part

    def dims_of(self, ndim: int) -> tuple[Names, ...]:
        """Return the mesh axes of each dimension, or raise ``ValueError`` if they are unknown."""
        return tuple(self.over((dim,), ndim) for dim in range(ndim))


WHOLE = Split()


class Within(NamedTuple):
    """What lies within one unit of a leaf, across devices.

    Attributes:
      dims: the dimensions of the leaf to reduce over.
      entries: how many entries a unit has.
      split: how the leaf is split.
      names: the mesh axes over which a unit is split.
    """

    dims: tuple[int, ...]
    entries: int
    split: Split = WHOLE
    names: Names = ()

    def sum(self, values: jax.Array) -> jax.Array:
        """Return the sum over each unit; dimensions stay, with size 1."""
        total = jnp.sum(values, axis=self.dims, keepdims=True)
        return lax.psum(total, self.names) if self.names else total

    def max(self, values: jax.Array) -> jax.Array:
        """Return the largest entry of each unit, none of which is negative."""
        largest = jnp.max(values, axis=self.dims, keepdims=True, initial=0.0)
        return lax.pmax(largest, self.names) if self.names else largest

    def min(self, values: jax.Array, *, initial: float) -> jax.Array:
        """Return the smallest entry of each unit, at most ``initial``."""
        least = jnp.min(values, axis=self.dims, keepdims=True, initial=initial)
        return lax.pmin(least, self.names) if self.names else least

    def place(self, of_units: jax.Array) -> jax.Array:
        """Return an array with an entry for each unit of the whole leaf: zero for other devices'.

        Summed over all devices (``together``) it is the same everywhere, even where a unit spans
        several of them.
        """
        if not self.split.names:
            return of_units
        kept = [dim for dim in range(of_units.ndim) if dim not in self.dims]
        names = {dim: self.split.over((dim,), of_units.ndim) for dim in kept}
        if not any(names.values()):
            return of_units
        shape, start = list(of_units.shape), [jnp.zeros((), jnp.int32)] * of_units.ndim
        for dim, over in names.items():
            if over:
                start[dim] = lax.axis_index(over) * shape[dim]
                shape[dim] *= _size(over)
        return lax.dynamic_update_slice(jnp.zeros(shape, of_units.dtype), of_units, start)


def splits_of(
    tree: object, axis_name: AxisName, *, reduces: bool = True, apart: Names = ()
) -> tuple[Split, ...]:
    """Return how each leaf of a tree is split.

    Where JAX tracks over which axes a value varies (``jax.shard_map`` does, unless ``check_vma``
    is off), a leaf that is the same on all devices is known to be whole, and is counted once.

    Args:
      tree: the leaves.
      axis_name: as for ``gs.guard``.
      reduces: whether more than one entry is read at a time, so that all axes must be named.
      apart: axes that need not be, because devices along them have leaves of their own.

    Raises:
      TypeError: if ``axis_name`` is neither names nor specs.
      ValueError: if an axis is unknown here or missing, or a spec does not fit its leaf.
    """
    leaves = jax.tree.leaves(tree)
    names = as_names(axis_name)
    if axis_name is None:
        splits = (WHOLE,) * len(leaves)
    elif names is None:
        splits = _by_specs(tree, axis_name)
    else:
        splits = _by_names(leaves, names)
    if reduces:
        named = [split.names if names is None else names for split in splits]
        check_all_named(tree, [(*of_leaf, *apart) for of_leaf in named])
    return splits


def _by_names(leaves: Sequence[Any], names: Names) -> tuple[Split, ...]:
    check_bound(names)
    tracked = varying(lax.axis_index(names[0])) if names else ()
    if not tracked:
        return (Split(names),) * len(leaves)
    return tuple(Split(tuple(n for n in names if n in varying(leaf))) for leaf in leaves)


def withins_of(updates: object, units: Units, axis_name: AxisName) -> tuple[Within, ...]:
    """Return, for each leaf, what lies within its units."""
    splits = splits_of(updates, axis_name)
    # Units are derived from names and from the shapes of whole leaves.
    axes = unit_axes(units, whole_shapes(updates, axis_name))
    found = zip(jax.tree.leaves(updates), axes, splits, strict=True)
    return tuple(_within(leaf, dims, split) for leaf, dims, split in found)


def whole_shapes(tree: Any, axis_name: AxisName) -> Any:
    """Return the shapes of whole leaves; where there are no axes, as in ``init``, the tree."""
    if axis_name is None or not is_inside(axis_name):
        return tree
    leaves, structure = jax.tree.flatten(tree)
    shapes = [
        jax.ShapeDtypeStruct(split.whole_shape(leaf.shape), leaf.dtype)
        for leaf, split in zip(leaves, splits_of(tree, axis_name), strict=True)
    ]
    return jax.tree.unflatten(structure, shapes)


def together(
    arrays: Sequence[jax.Array],
    splits: Sequence[Split],
    reduce: Callable[..., Any] = lax.psum,
) -> list[jax.Array]:
    """Reduce arrays over the axes of their leaves, with one collective for each set of axes."""
    reduced, groups = list(arrays), dict[Names, list[int]]()
    for index, split in enumerate(splits):
        groups.setdefault(split.names, []).append(index)
    for names, indices in groups.items():
        if names:
            of_group = reduce([reduced[index] for index in indices], names)
            for index, array in zip(indices, of_group, strict=True):
                reduced[index] = array
    return reduced


def _by_specs(tree: object, specs: Any) -> tuple[Split, ...]:
    check_axis_name(specs)
    try:
        each = jax.tree.leaves(jax.tree.broadcast(specs, tree, is_leaf=is_spec), is_leaf=is_spec)
    except ValueError as error:
        msg = f"axis_name must be a tree of PartitionSpecs like the updates, or a prefix: {error}"
        raise ValueError(msg) from error
    splits: list[Split] = []
    for (path, leaf), spec in zip(jax.tree_util.tree_leaves_with_path(tree), each, strict=True):
        if len(spec) > leaf.ndim:
            msg = (
                f"axis_name has {spec} for updates{jax.tree_util.keystr(path)}, which has only "
                f"{leaf.ndim} dimensions"
            )
            raise ValueError(msg)
        dims = names_by_dim(spec, leaf.ndim)
        splits.append(Split(tuple(name for names in dims for name in names), dims))
    check_bound(tuple(dict.fromkeys(name for split in splits for name in split.names)))
    return tuple(splits)


def _within(leaf: jax.Array, dims: tuple[int, ...], split: Split) -> Within:
    names = split.over(dims, leaf.ndim)
    entries = math.prod(leaf.shape[dim] for dim in dims) * _size(names)
    return Within(dims, entries, split, names)


def _size(names: Names) -> int:
    return math.prod(lax.axis_size(name) for name in names)
