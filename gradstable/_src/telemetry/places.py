"""Which recorded leaves have a gradient: not all need one, and each keeps its column."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.names import Unnamed, without_names
from gradstable._src.core.paths import leaf_keys


class Places(NamedTuple):
    """The columns of a gradient's leaves among the recorded ones.

    Attributes:
      columns: the column of each leaf of the gradient, -1 for none.
      total: the number of columns.
    """

    columns: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, updates: Any, recorded: Unnamed) -> "Places":
        """Find leaves by their paths, unless all are present: then they are in the same order."""
        total, number = len(jax.tree.leaves(recorded)), len(jax.tree.leaves(updates))
        if number == total:
            return cls(tuple(range(total)), total)
        known: dict[int, int] = {}
        for column, key in enumerate(leaf_keys(recorded).tolist()):
            known.setdefault(key, column)
        # Both without the names of fields, which the record does not have.
        keys = leaf_keys(without_names(updates, ())).tolist()
        return cls(tuple(known.get(key, -1) for key in keys), total)

    def spread(self, values: jax.Array, empty: float) -> jax.Array:
        """Return the values of the gradient's leaves in their columns, ``empty`` in the others."""
        if self._all:
            return values
        columns, kept = self._kept
        return jnp.full((self.total,), empty, values.dtype).at[columns].set(values[kept])

    def spread_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Do the same for sizes known at trace time; a leaf without a gradient has size 0."""
        columns, kept = self._kept
        spread = np.zeros((self.total,), np.int64)
        spread[columns] = np.asarray(sizes, np.int64)[kept]
        return tuple(spread.tolist())

    def column_of(self, leaf: jax.Array) -> jax.Array:
        """Return the column of a leaf of the gradient, -1 for none."""
        if self._all:
            return leaf
        return jnp.asarray((*self.columns, -1), jnp.int32)[leaf]  # -1 selects the last

    @property
    def _all(self) -> bool:
        return self.columns == tuple(range(self.total))

    @property
    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        columns = np.asarray(self.columns, np.int64)
        kept = np.flatnonzero(columns >= 0)
        return columns[kept], kept
