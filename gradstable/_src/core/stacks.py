"""Stack small leaves of one kind in one array: a thousand reductions are slow to compile."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradstable._src.core.layout import Split, together
from gradstable._src.core.xla import never

# Leaves up to this size are stacked; the copy of a larger one would cost more than it saves.
_SMALL = 1 << 14
# A stack is copied and read immediately, so it stays small enough for a cache.
_STACK_SIZE = 1 << 17
# Stacks exist until the step is decided on, so together they stay below this fraction of the tree,
# or below a number of entries that never matters.
_SHARE = 1 / 200
_FREE = 1 << 16


class Stacks(NamedTuple):
    """Leaves in groups, each read as one array ``[k, *shape]``; ``k`` is usually 1."""

    leaves: Sequence[jax.Array]
    groups: list[list[int]]
    splits: list[Split]  # of each group

    @classmethod
    def of(
        cls,
        leaves: Sequence[jax.Array],
        splits: Sequence[Split],
        places: Sequence[str],
        *,
        one_by_one: bool = False,
    ) -> "Stacks":
        """Stack leaves, each in one array only.

        Args:
          leaves: the leaves.
          splits: how each is split.
          places: the place of each within its layer. Only leaves that are sharded alike may be
            stacked, or XLA would move them between devices. On a mesh with explicit axes their
            types say so; elsewhere leaves in the same place of every layer are assumed to be.
          one_by_one: whether only one stack is needed at a time, as by ``sums_in_order``.
        """
        small, most = _small(leaves, one_by_one=one_by_one)
        kinds: dict[object, list[list[int]]] = {}
        for index, (leaf, split, place) in enumerate(zip(leaves, splits, places, strict=True)):
            kind = (jax.typeof(leaf), split, place) if index in small else index
            stacks = kinds.setdefault(kind, [[]])
            if (len(stacks[-1]) + 1) * leaf.size > most:
                stacks.append([])
            stacks[-1].append(index)
        groups = [stack for stacks in kinds.values() for stack in stacks if stack]
        of_stacks = [splits[indices[0]] for indices in groups]
        return cls(leaves, groups, of_stacks)

    def sums(self, reduce: Callable[[jax.Array], jax.Array], dtype: DTypeLike) -> jax.Array:
        """Sum ``reduce: [k, *shape] -> [k]`` over all devices; return one number per leaf."""
        return self._gather([reduce(self._stack(group)).astype(dtype) for group in self.groups])

    def sums_in_order(
        self,
        reduce: Callable[[jax.Array, jax.Array], jax.Array],
        factor: jax.Array,
        dtype: DTypeLike,
    ) -> jax.Array:
        """Do the same with a factor, one array after the other.

        This way, memory of the size of a leaf is needed only once.
        """
        reduced: list[jax.Array] = []
        last: dict[Split, jax.Array] = {}
        for group, split in zip(self.groups, self.splits, strict=True):
            if split in last:
                # Each waits for the last.
                waits = never(last[split][0])
                waited = jnp.where(waits, jnp.zeros((), factor.dtype), factor)
                sums = reduce(self._stack(group, after=waits), waited)[-len(group) :]
            else:
                sums = reduce(self._stack(group), factor)
            last[split] = sums.astype(dtype)
            reduced.append(last[split])
        return self._gather(reduced)

    def _stack(self, group: Sequence[int], *, after: jax.Array | None = None) -> jax.Array:
        rows = [lax.expand_dims(self.leaves[index], (0,)) for index in group]
        if len(rows) == 1:
            return rows[0]
        if after is not None:
            # One more row, which must be computed before the others can be put after it.
            zeros, ones = (lax.full_like(rows[0], value) for value in (0, 1))
            rows = [jnp.where(after, ones, zeros), *rows]
        return lax.concatenate(rows, 0)

    def _gather(self, reduced: Sequence[jax.Array]) -> jax.Array:
        order = np.argsort(np.concatenate(self.groups))
        return jnp.concatenate(together(reduced, self.splits))[order]


def _small(leaves: Sequence[jax.Array], *, one_by_one: bool) -> tuple[set[int], int]:
    """Return the leaves to stack, and the most entries of a stack that memory allows."""
    entries = sum(leaf.size for leaf in leaves)
    allowed = entries if entries <= _FREE else math.ceil(_SHARE * entries)
    if one_by_one:
        small = {index for index, leaf in enumerate(leaves) if leaf.size <= _SMALL}
        return small, min(_STACK_SIZE, allowed)
    small = set()
    for index in sorted(range(len(leaves)), key=lambda index: leaves[index].size):
        allowed -= leaves[index].size
        if allowed < 0 or leaves[index].size > _SMALL:
            break
        small.add(index)
    return small, _STACK_SIZE
