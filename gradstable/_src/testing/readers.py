"""Promises about readers: optax finds values in a state by their names."""

from functools import partial
from typing import Any

import jax
import optax

from gradstable._src.core.order import may_be_around
from gradstable._src.guard import guard
from gradstable._src.recovery.accumulate import accumulate
from gradstable._src.recovery.rollback import rollback
from gradstable._src.telemetry.record import record
from gradstable._src.testing.compare import require


def check_optax_readers(tx: optax.GradientTransformation, params: Any) -> None:
    """Let ``optax.tree.get`` and ``set`` find the same values inside gradstable's wrappers.

    A field of your state that has the name of one of ours would be found twice.
    """
    bare = state = jax.eval_shape(tx.init, params)
    wrappers = {"guard": guard, "rollback": rollback, "record": record}
    for name, wrap in {**wrappers, "accumulate": partial(accumulate, every=2)}.items():
        # One of our own transforms can be in the way.
        if may_be_around(name, state):
            tx = wrap(tx)
            state = jax.eval_shape(tx.init, params)
    for name in sorted(_names(bare)):
        wanted = optax.tree.get_all_with_path(bare, name)
        found = optax.tree.get_all_with_path(state, name)
        counts = f"{name!r} is found {len(wanted)} times alone, {len(found)} times when guarded"
        require(len(found) == len(wanted), counts)
        before = jax.tree.structure(optax.tree.set(bare, **{name: wanted[0][1]}))
        after = jax.tree.structure(optax.tree.set(state, **{name: wanted[0][1]}))
        grown = after.num_leaves - before.num_leaves
        kept = jax.tree.structure(state).num_leaves - jax.tree.structure(bare).num_leaves
        require(grown == kept, f"{name!r} is set in other places when guarded than alone")


def _names(state: Any) -> set[str]:
    """Return the names in a state, except those in states of our own wrappers and rules."""
    names: set[str] = set()

    def note(node: Any) -> bool:
        if isinstance(node, dict):
            names.update(key for key in node if isinstance(key, str))
        elif hasattr(node, "_fields") and not type(node).__module__.startswith("gradstable."):
            names.update(node._fields)
        return False

    jax.tree.map(lambda _: None, state, is_leaf=note)
    return {name for name in names if name.isidentifier()}
