"""Merge what taps left in several micro-batches."""

from collections.abc import Mapping
from functools import reduce

import jax
import jax.numpy as jnp

from gradstable._src.taps.kinds import Sums
from gradstable._src.taps.summary import largest_of
from gradstable._src.taps.sums import LARGEST, POWERS, RUNS


def merge(*taps: Mapping[str, Sums]) -> dict[str, Sums]:
    """Return the taps of several passes together, as if they had been one.

    Use it for gradient accumulation: the statistics are those of all micro-batches. The maximum
    stays exact, which it would not be if they were added.

    Args:
      *taps: what ``gs.taps.value_and_grad`` returned for each, one or more.

    Returns:
      Taps of the same structure.

    Raises:
      ValueError: if there are none, or they are not of the same taps.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> grads_of = gs.taps.value_and_grad(lambda w, x: jnp.sum(gs.tap("h", w * x)))
      >>> parts = [grads_of(1.0, jnp.full(2, size))[1] for size in (3.0, 5.0)]
      >>> found = gs.taps.read(gs.taps.merge(*parts))["h"]["forward"]
      >>> found["calls"], found["max_abs"], round(found["rms"], 3)
      (2, 5.0, 4.123)
    """
    if not taps:
        msg = "there is nothing to merge: pass the taps of one or more passes"
        raise ValueError(msg)
    first = jax.tree.structure(dict(taps[0]))
    for other in taps[1:]:
        if jax.tree.structure(dict(other)) != first:
            msg = f"these are different taps: {sorted(taps[0])} and {sorted(other)}"
            raise ValueError(msg)
    return reduce(lambda one, other: jax.tree.map(_merged, one, other), map(dict, taps))


def _merged(rows: jax.Array, others: jax.Array) -> jax.Array:
    """Return the sums of both, and what tells the maximum of that with the larger one."""
    larger = (largest_of(rows)[0] >= largest_of(others)[0])[..., None]
    of_max = jnp.zeros(rows.shape[-1], bool).at[jnp.array([RUNS, LARGEST])].set(True)
    of_max = of_max.at[POWERS].set(True)
    return jnp.where(of_max, jnp.where(larger, rows, others), rows + others)
