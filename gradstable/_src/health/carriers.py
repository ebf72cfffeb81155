"""Transforms before a guard that keep a NaN, and so pass it to the guard in every step."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.find import Snapshots, state_in
from gradstable._src.core.paths import Namer, path_keys

# Sums and averages of gradients in optax states, by the names of their fields. A non-finite value
# stays in them forever: they are multiplied, and 0 * nan is nan.
_SUM = "acc_grads"
_CARRYING = frozenset({_SUM, "trace", "ema", "mu", "nu", "momentum", "velocity"})
_MULTI_STEPS = (
    "{place} of optax.MultiSteps has a NaN or an infinity in {leaf}. MultiSteps resets it by a "
    "product, and 0 * nan is nan, so every mean from now on is broken, and the guard inside "
    "rejects it. Use gradstable.accumulate(gradstable.guard(optimizer), k) instead of MultiSteps. "
    "If a framework wraps your optimizer in MultiSteps, turn off its accumulation and pass that "
    "optimizer. To continue with this state, set the mean to zero: opt_state = optax.tree.set("
    "opt_state, acc_grads=optax.tree.zeros_like(optax.tree.get(opt_state, 'acc_grads')))."
)
_OTHER = (
    "{place}, outside the guard, has a NaN or an infinity in {leaf}. If the guard comes after it, "
    "every gradient that the guard sees is broken. Put gradstable.guard around the whole chain."
)


class Carrier(NamedTuple):
    """A sum or an average of gradients outside all guards.

    Attributes:
      place: where it is in the optimizer state.
      is_sum: whether it is the accumulator of ``optax.MultiSteps``.
      keys: numbers of the paths of its leaves.
      broken: whether a leaf has an entry that is not finite, for each member; on the device.
    """

    place: str
    is_sum: bool
    keys: Sequence[int]
    broken: Sequence[Any]

    def tell(self, namer: Namer, broken: Sequence[Any]) -> list[str]:
        """Return the message for one member, given which leaves are broken."""
        found = np.flatnonzero(broken)
        if not found.size:
            return []
        text = _MULTI_STEPS if self.is_sum else _OTHER
        leaf = namer(int(found[0]), int(self.keys[found[0]])) if namer.known else f"leaf {found[0]}"
        return [text.format(place=self.place, leaf=leaf)]


def find_carriers(opt_state: object, *, axes: int, sums_only: bool) -> list[Carrier]:
    """Return the parts of a state that could pass a NaN to a guard again and again.

    Args:
      opt_state: as for ``gs.health``.
      axes: how many axes the members have.
      sums_only: whether to look only at ``optax.MultiSteps``.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(state_in(opt_state), is_leaf=_is_safe)
    found: dict[str, list[tuple[Any, Any]]] = {}
    for path, leaf in flat:
        names = [getattr(key, "name", None) for key in path]
        place = next((i for i, name in enumerate(names) if name in _CARRYING), None)
        if place is None or (sums_only and names[place] != _SUM) or not _is_real_array(leaf):
            continue
        where = f"opt_state{jax.tree_util.keystr(path[: place + 1])}"
        found.setdefault(where, []).append((path[place + 1 :], leaf))
    return [
        Carrier(
            place=where,
            is_sum=where.endswith(f".{_SUM}"),
            keys=path_keys([path for path, _ in leaves]).tolist(),
            broken=_broken([leaf for _, leaf in leaves], axes),
        )
        for where, leaves in found.items()
    ]


def _is_safe(node: object) -> bool:
    # The state inside a guard is finite, and a copy is outdated.
    return "ledger" in getattr(node, "_fields", ()) or isinstance(node, Snapshots)


def _is_real_array(leaf: object) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


@functools.partial(jax.jit, static_argnums=1)
def _broken(leaves: list[Any], axes: int) -> list[jax.Array]:
    return [
        ~jnp.all(jnp.isfinite(leaf), axis=tuple(range(axes, jnp.ndim(leaf)))) for leaf in leaves
    ]
