"""Split leaves over an axis of the mesh: FSDP for parameters, ZeRO-1 for the state alone."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gradstable._src.core.axis_name import names_by_dim
from gradstable._src.core.checks import check_size


def spread(
    params: Any,
    axis_name: str | Sequence[str],
    *,
    mesh: Mesh | AbstractMesh | None = None,
    min_size: int = 4096,
) -> Any:
    """Return shardings that split every large leaf over one axis of a mesh, or several.

    Use it for parameters (FSDP, ZeRO-3), whose state then follows from
    ``gs.sharding.state_shardings``, or for the state alone (ZeRO-1), with the parameters left where
    they are. Existing splits are kept, and split further.

    The longest dimension that divides evenly is split, or the first one if several are equal. A
    leaf is left as it is if it is smaller than ``min_size``, if nothing divides evenly, or if the
    axis already splits it.

    Args:
      params: tree of arrays, or of ``jax.ShapeDtypeStruct``.
      axis_name: the axis of the mesh, or several that act as one.
      mesh: the mesh. Default: that of the leaves, which must then have a ``NamedSharding``.
      min_size: leaves with fewer entries stay whole, >= 1. Default 4096: the memory saved on
        biases and norms is not worth gathering them.

    Returns:
      A tree of ``NamedSharding`` like ``params``.

    Raises:
      ValueError: if the mesh has no such axis, or is not given and leaves have none.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> mesh = jax.make_mesh((1,), ("fsdp",))
      >>> params = {"kernel": jnp.ones((64, 256)), "bias": jnp.zeros(256)}
      >>> shardings = gs.sharding.spread(params, "fsdp", mesh=mesh)
      >>> shardings["kernel"].spec, shardings["bias"].spec
      (P(None, 'fsdp'), P())

    Source:
      Rajbhandari, Rasley, Ruwase, He, "ZeRO: Memory Optimizations Toward Training Trillion
      Parameter Models", 2019, arXiv:1910.02054, for the choice of what to split.
    """
    check_size("min_size", min_size, at_least=1)
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)

    def place(path: Any, leaf: Any) -> NamedSharding:
        own = getattr(leaf, "sharding", None)
        here = own.mesh if mesh is None and isinstance(own, NamedSharding) else mesh
        if here is None:
            msg = (
                f"params{jax.tree_util.keystr(path)} is not on a mesh: pass mesh, or put params "
                "on one"
            )
            raise ValueError(msg)
        spec = own.spec if isinstance(own, NamedSharding) and own.mesh == here else ()
        return NamedSharding(here, _split(np.shape(leaf), spec, names, here, min_size))

    return jax.tree_util.tree_map_with_path(place, params)


def _split(
    shape: tuple[int, ...],
    spec: PartitionSpec | tuple[()],
    names: tuple[str, ...],
    mesh: Mesh | AbstractMesh,
    min_size: int,
) -> PartitionSpec:
    for name in names:
        if name not in mesh.shape:
            msg = f"axis_name must be one of the mesh's axes {mesh.axis_names}, got {name!r}"
            raise ValueError(msg)
    taken = list(names_by_dim(spec, len(shape)))
    if math.prod(shape) < min_size or set(names) & {name for entry in taken for name in entry}:
        return PartitionSpec(*spec)
    parts = [math.prod(mesh.shape[name] for name in (*entry, *names)) for entry in taken]
    # The size left on a device decides, so that a dimension that is already split comes later.
    left = [
        size // part if size % part == 0 else 0 for size, part in zip(shape, parts, strict=True)
    ]
    if not left or max(left) == 0:
        return PartitionSpec(*spec)
    chosen = left.index(max(left))
    taken[chosen] = (*taken[chosen], *names)
    return PartitionSpec(*(_entry(entry) for entry in taken))


def _entry(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return None if not names else names[0] if len(names) == 1 else names
