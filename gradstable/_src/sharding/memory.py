"""How much of a tree one device holds."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def bytes_per_device(tree: Any, *, shardings: Any = None) -> int:
    """Return how many bytes of a tree are on one device.

    Use it before a run, on shapes alone, to see whether parameters and state will fit: it allocates
    no memory. It does not include the temporary memory of a step, which XLA reports in
    ``jax.jit(step).lower(...).compile().memory_analysis()``.

    Args:
      tree: arrays or ``jax.ShapeDtypeStruct``: parameters, a state, or both.
      shardings: a tree like it, as from ``gs.sharding.state_shardings``. Default: those that the
        leaves have; a leaf without one counts as a whole.

    Returns:
      Bytes on one device, an ``int``. All parts of a leaf have the same size.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> mesh = jax.sharding.AbstractMesh((256,), ("fsdp",))
      >>> params = {"kernel": jax.ShapeDtypeStruct((8192, 8192), jnp.float32)}
      >>> shardings = gs.sharding.spread(params, "fsdp", mesh=mesh)
      >>> tx = gs.guard(optax.adamw(3e-4))
      >>> of_state = gs.sharding.state_shardings(tx, params, shardings=shardings)
      >>> gs.sharding.bytes_per_device(params, shardings=shardings)
      1048576
      >>> gs.sharding.bytes_per_device(jax.eval_shape(tx.init, params), shardings=of_state)
      2098272
    """
    if shardings is None:
        shardings = jax.tree.map(lambda leaf: getattr(leaf, "sharding", False) or False, tree)

    def held(leaf: Any, sharding: Any) -> int:
        shape = sharding.shard_shape(leaf.shape) if sharding else leaf.shape
        return math.prod(shape) * _itemsize(leaf.dtype)

    return sum(jax.tree.leaves(jax.tree.map(held, tree, shardings)))


def _itemsize(dtype: Any) -> int:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return 8
    return np.dtype(dtype).itemsize
