"""What ``axis_name`` can be: names of mesh axes, or the ``PartitionSpec``s of the leaves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax import lax
from jax.sharding import PartitionSpec

# One spec for all leaves, or a tree of them.
AxisName: TypeAlias = str | Sequence[Any] | Mapping[Any, Any] | PartitionSpec | None

Names: TypeAlias = tuple[str, ...]


def check_axis_name(axis_name: object) -> None:
    """Raise ``TypeError`` unless an argument names mesh axes or has ``PartitionSpec``s."""
    if axis_name is None or as_names(axis_name) is not None:
        return
    leaves = jax.tree.leaves(axis_name, is_leaf=is_spec)
    if not leaves or not all(map(is_spec, leaves)):
        msg = (
            "axis_name must be the name of a mesh axis, a tuple of names, or the PartitionSpecs of "
            f"the leaves, got {axis_name!r} of type {type(axis_name).__name__}"
        )
        raise TypeError(msg)


def as_names(axis_name: object) -> Names | None:
    """Return the names if they are given as names; ``None`` for specs and for anything else."""
    if isinstance(axis_name, str):
        return (axis_name,)
    if isinstance(axis_name, (tuple, list)) and all(isinstance(name, str) for name in axis_name):
        return tuple(axis_name)
    return None


def all_names(axis_name: AxisName) -> Names:
    """Return the mesh axes that are named, directly or by specs."""
    names = as_names(axis_name)
    if names is not None:
        return names
    specs = jax.tree.leaves(axis_name, is_leaf=is_spec)
    found = (name for spec in specs for entry in spec for name in _entry_names(entry))
    return tuple(dict.fromkeys(found))


def names_by_dim(spec: Iterable[Any], ndim: int) -> tuple[Names, ...]:
    """Return the mesh axes of each dimension, from a ``PartitionSpec`` that can be shorter."""
    named = tuple(map(_entry_names, spec))
    return (*named, *[()] * (ndim - len(named)))


def is_inside(axis_name: AxisName) -> bool:
    """Whether all axes are bound here, as they are inside ``jax.shard_map``."""
    try:
        return all(lax.axis_size(name) for name in all_names(axis_name))
    except NameError:
        return False


def is_spec(node: object) -> bool:
    """Whether this is the ``PartitionSpec`` of a leaf."""
    return isinstance(node, PartitionSpec)


def _entry_names(entry: Any) -> Names:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)
