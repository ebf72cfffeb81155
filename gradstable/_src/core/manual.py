"""What JAX knows inside ``jax.shard_map``: which axes exist, and over which a value varies."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax


def varying(value: Any) -> frozenset[str]:
    """Return the axes over which JAX knows a value to vary; none if it does not track that."""
    kind = getattr(jax.typeof(value), "manual_axis_type", None)
    return getattr(kind, "varying", frozenset())


def check_all_named(tree: object, named: Sequence[tuple[str, ...]]) -> None:
    """Raise ``ValueError`` if a leaf varies over an axis that is not among those named for it."""
    for (path, leaf), names in zip(jax.tree_util.tree_leaves_with_path(tree), named, strict=True):
        missing = tuple(sorted(varying(leaf) - set(names)))
        if missing:
            name = repr(missing[0]) if len(missing) == 1 else missing
            msg = (
                "axis_name must name all mesh axes over which leaves vary here, but leaf"
                f"{jax.tree_util.keystr(path)} varies over {name}: pass axis_name={name} or the "
                "PartitionSpecs if leaves are split over it, average gradients with jax.lax.pmean "
                "first if each device has its own, or pass check_vma=False to jax.shard_map if "
                "each device should decide for itself"
            )
            raise ValueError(msg)


def check_bound(names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if an axis is unknown here."""
    for name in names:
        try:
            lax.axis_size(name)
        except NameError:
            known = tuple(jax.sharding.get_abstract_mesh().manual_axes)
            here = (
                f"the axes here are {known}"
                if known
                else "there are no axes here. They exist only inside jax.shard_map; under jit with "
                "shardings none is needed, so leave axis_name out"
            )
            msg = f"axis_name must name axes of the mesh, got {name!r}; {here}"
            raise ValueError(msg) from None
