"""Stack small leaves of one kind in one array: a thousand reductions are slow to compile."""

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
_SMALL = 1 << 12
# A stack is copied and read immediately, and the next one takes its place: it fits into a cache.
_STACK_SIZE = 1 << 16
# From this many arrays on, XLA's CPU backend copies them one by one. It joins fewer by a program,
# which takes as long to compile as all others of a small step.
_LEAST = 16


class Stacks(NamedTuple):
    """Leaves in groups, each read as one array ``[k, *shape]``; ``k`` is 1 for most of them."""

    leaves: Sequence[jax.Array]
    groups: list[list[int]]
    splits: list[Split]  # of each group

    @classmethod
    def of(
        cls, leaves: Sequence[jax.Array], splits: Sequence[Split], places: Sequence[str]
    ) -> "Stacks":
        """Stack leaves, each in one array only.

        Args:
          leaves: the leaves.
          splits: how each is split.
          places: the place of each within its layer. Only leaves that are sharded alike may be
            stacked, or XLA would move them between devices. On a mesh with explicit axes their
            types say so; elsewhere leaves in the same place of every layer are assumed to be.
        """
        kinds: dict[object, list[int]] = {}
        for index, (leaf, split, place) in enumerate(zip(leaves, splits, places, strict=True)):
            kind = (jax.typeof(leaf), split, place) if leaf.size <= _SMALL else index
            kinds.setdefault(kind, []).append(index)
        # In order, since it takes a program of its own to bring their sums back into it.
        groups = sorted(group for kind in kinds.values() for group in _divided(kind, leaves))
        return cls(leaves, groups, [splits[group[0]] for group in groups])

    def sums(
        self, reduce: Callable[[jax.Array, jax.Array | None], jax.Array], dtype: DTypeLike
    ) -> jax.Array:
        """Sum a function over all devices; return one number per leaf.

        Args:
          reduce: from an array ``[k, *shape]`` to ``[k]`` numbers. It also gets one of the numbers
            of the array before, if there is one, and can wait for it to use the same memory. A
            stack always does.
          dtype: of the numbers.
        """
        reduced: list[jax.Array] = []
        last: dict[Split, jax.Array] = {}
        for group, split in zip(self.groups, self.splits, strict=True):
            before = last.get(split)
            reduced.append(reduce(self._stack(group, before), before).astype(dtype))
            last[split] = reduced[-1][0]
        # Apart, or XLA reads every stack twice for the sum of these sums.
        sums = lax.optimization_barrier(jnp.concatenate(together(reduced, self.splits)))
        order = np.concatenate(self.groups)
        return sums if np.all(order[:-1] < order[1:]) else sums[np.argsort(order)]

    def _stack(self, group: Sequence[int], before: jax.Array | None) -> jax.Array:
        rows = [lax.expand_dims(self.leaves[index], (0,)) for index in group]
        if len(rows) == 1:
            return rows[0]
        if before is not None:
            rows[0] = lax.select_n(never(before), rows[0], lax.full_like(rows[0], 0))
        return lax.concatenate(rows, 0)


def _divided(indices: Sequence[int], leaves: Sequence[jax.Array]) -> list[list[int]]:
    """Return the leaves of one kind in stacks of equal length, and those that are left over."""
    most = _STACK_SIZE // max(1, leaves[indices[0]].size)
    if len(indices) < _LEAST:
        return [[index] for index in indices]
    length = max(_LEAST, len(indices) // -(-len(indices) // most))
    full = len(indices) - len(indices) % length
    stacks = [list(indices[start : start + length]) for start in range(0, full, length)]
    return [*stacks, *([index] for index in indices[full:])]
