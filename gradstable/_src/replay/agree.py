"""Whether the replicas of a data-parallel run still agree, asked inside a compiled step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.axis_name import as_names
from gradstable._src.core.manual import check_bound
from gradstable._src.replay.fingerprint import fingerprint


def replicas_agree(tree: Any, axis_name: str | Sequence[str]) -> jax.Array:
    """Return whether all devices along mesh axes hold the same bits, inside ``jax.shard_map``.

    Use it every few hundred steps, as a part of the compiled step, on parameters and optimizer
    state that are equal by construction. It reads every array once, and two numbers travel between
    the devices, of all processes. ``gs.sharding.unequal_replicas``, outside of ``jit``, then says
    which leaf and which device it is.

    A fault before gradients are averaged over devices is shared by all of them, and not seen.

    Args:
      tree: tree of arrays; other leaves are ignored.
      axis_name: the mesh axes over which the arrays are replicated, as for ``jax.lax.pmean``. If
        they are also split over other axes, the answer is about this device's part:
        ``jax.lax.pmin`` over these axes makes one answer of all.

    Returns:
      A bool scalar, the same on all devices along these axes.

    Raises:
      TypeError: if ``axis_name`` is not the name of an axis.
      ValueError: if it is not known here, as outside of ``jax.shard_map``.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jax.sharding import PartitionSpec as P
      >>> import gradstable as gs
      >>> agree = jax.shard_map(
      ...     lambda params: gs.sharding.replicas_agree(params, "data"),
      ...     mesh=jax.make_mesh((1,), ("data",)),
      ...     in_specs=P(),
      ...     out_specs=P(),
      ... )
      >>> bool(jax.jit(agree)({"w": jnp.ones(3)}))
      True
    """
    names = as_names(axis_name)
    if not names:
        msg = f"axis_name must be the name of a mesh axis or a tuple of names, got {axis_name!r}"
        raise TypeError(msg)
    check_bound(names)
    hashed = fingerprint(tree)
    return jnp.all(lax.pmin(hashed, names) == lax.pmax(hashed, names))
