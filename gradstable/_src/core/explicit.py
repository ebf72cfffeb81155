"""Meshes with explicit axes, where types say how arrays are sharded."""

from collections.abc import Callable

import jax
import jax.core
from jax.sharding import NamedSharding, PartitionSpec


def is_split(array: jax.Array) -> bool:
    """Whether the type of an array says that it is split."""
    return any(axis is not None for axis in jax.typeof(array).sharding.spec)


def laid_out(like: jax.Array, spec: PartitionSpec) -> NamedSharding:
    """Return a sharding on the mesh of an array.

    A ``PartitionSpec`` alone refers to the mesh of ``jax.set_mesh``, which may not be set, but an
    array carries its own.
    """
    if not isinstance(like, jax.core.Tracer) and isinstance(like.sharding, NamedSharding):
        return NamedSharding(like.sharding.mesh, spec)
    return NamedSharding(jax.typeof(like).sharding.mesh, spec)


def as_laid_out(like: jax.Array) -> NamedSharding | None:
    """Return the sharding of an array in a form accepted by functions that create arrays."""
    return laid_out(like, jax.typeof(like).sharding.spec) if is_split(like) else None


def created_like(like: jax.Array, create: Callable[[NamedSharding | None], jax.Array]) -> jax.Array:
    """Return what a function creates from nothing but a sharding, laid out as another array is."""
    where = as_laid_out(like)
    if where is None or isinstance(like, jax.core.Tracer):
        return create(where)
    # Outside jit what is created from nothing is on one device, and would stay there.
    return jax.device_put(create(None), where)
