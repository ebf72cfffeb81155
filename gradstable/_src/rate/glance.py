"""Inner products of gradients, steps and parameters, estimated from a few of their entries."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.equations import is_array, only_arrays
from gradstable._src.core.explicit import is_split, laid_out
from gradstable._src.core.layout import splits_of, together
from gradstable._src.core.numerics import is_inexact, widest
from gradstable._src.core.sample import entries_of

# One entry in 128, and at least 2**14 in all: reads of gradient, moments and parameter together
# stay below a fifth of a word per parameter. A sum of more than 2**18 products is no better.
_ONE_IN, _AT_LEAST, _AT_MOST = 128, 1 << 14, 1 << 18


class Glance:
    """Which entries of trees like the parameters to look at; they depend on shapes alone.

    The entries of all leaves are put together in one vector, so that a thousand leaves need no more
    reductions than one. Each is multiplied by the root of the number of entries it stands for:
    inner products of such vectors estimate those of whole trees.
    """

    def __init__(self, params: Any) -> None:
        self._leaves = _leaves(params)
        real = [leaf for leaf in self._leaves if leaf is not None]
        self.dtype = widest(real)
        self.entries = sum(leaf.size for leaf in real)
        wanted = min(max(self.entries // _ONE_IN, _AT_LEAST), _AT_MOST)
        self._share = min(1.0, wanted / max(self.entries, 1))
        self._sizes = [0 if leaf is None else self._size(leaf) for leaf in self._leaves]

    def zeros(self) -> jax.Array:
        """Return the vector of a tree of zeros."""
        return jnp.zeros((sum(self._sizes),), self.dtype)

    def vector(self, tree: Any) -> jax.Array:
        """Return the entries of a tree like the parameters.

        If it is not like them, as the gradients of ``optax.contrib.dpsgd``, the result is zero.
        """
        leaves = _leaves(tree)
        same = len(leaves) == len(self._leaves) and all(
            leaf is None or param is None or leaf.shape == param.shape
            for leaf, param in zip(leaves, self._leaves, strict=True)
        )
        return self.joined(list(map(self.take, leaves))) if same else self.zeros()

    def take(self, leaf: Any) -> Any:
        """Return the entries of one leaf."""
        if not is_array(leaf):
            return leaf
        return leaf[self._slices(leaf)]

    def joined(self, parts: Sequence[Any]) -> jax.Array:
        """Return entries that ``take`` has taken from each leaf of a tree as one vector."""
        if len(parts) != len(self._leaves):
            return self.zeros()
        each = zip(self._leaves, self._sizes, parts, strict=True)
        flat = [self._flat(*one) for one in each if one[0] is not None]
        return jnp.concatenate(flat) if flat else jnp.zeros((0,), self.dtype)

    def products(
        self, pairs: Sequence[tuple[jax.Array, jax.Array]], axis_name: AxisName
    ) -> list[jax.Array]:
        """Return the inner product of each pair of vectors, over all devices."""
        each = jnp.stack([x * y for x, y in pairs])
        if axis_name is None:
            return list(jnp.sum(each, axis=1))
        known = [index for index, leaf in enumerate(self._leaves) if leaf is not None]
        real, sizes = [self._leaves[i] for i in known], [self._sizes[i] for i in known]
        sums = [jnp.sum(part, axis=1) for part in jnp.split(each, np.cumsum(sizes)[:-1], axis=1)]
        return list(sum(together(sums, splits_of(real, axis_name)), jnp.zeros(len(each))))

    def _slices(self, leaf: jax.Array) -> tuple[slice, ...]:
        return entries_of(leaf.shape, math.ceil(self._share * leaf.size))

    def _size(self, param: jax.Array) -> int:
        pairs = zip(self._slices(param), param.shape, strict=True)
        taken = math.prod(len(range(length)[one]) for one, length in pairs)
        return taken * (2 if jnp.iscomplexobj(param) else 1)

    def _flat(self, param: jax.Array, size: int, part: Any) -> jax.Array:
        if part is None or not is_inexact(part):
            return jnp.zeros((size,), self.dtype)
        stands_for = math.sqrt(param.size / part.size) if part.size else 1.0
        if is_split(part):  # parts of arrays that are sharded differently cannot be joined
            part = jax.sharding.reshard(part, laid_out(part, PartitionSpec()))
        if jnp.iscomplexobj(part):
            part = jnp.stack([part.real, part.imag])
        return stands_for * part.reshape(-1).astype(self.dtype)


def _leaves(tree: Any) -> list[Any]:
    """Return the leaves that have a gradient, and ``None`` for each other one."""
    leaves = jax.tree.leaves(only_arrays(tree), is_leaf=lambda leaf: leaf is None)
    return [leaf if leaf is not None and is_inexact(leaf) else None for leaf in leaves]
