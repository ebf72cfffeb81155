"""Counts of events inside, for the wrappers around them."""

from typing import Any

import jax
import jax.numpy as jnp

from gradstable._src.core.find import find_all
from gradstable._src.core.numerics import increment, unlimited
from gradstable._src.core.types import Measure
from gradstable._src.recovery.turn import RollbackState

_OURS = "gradstable."


def returns(inner_state: object) -> jax.Array:
    """Return how often all rollbacks inside have rolled back (int32 scalar)."""
    totals = [state.restores for _, state in find_all(inner_state, RollbackState)]
    return sum(totals, jnp.zeros((), jnp.int32))


def pass_by(inner_state: Any, idle: jax.Array, measured: Measure) -> Any:
    """Return an inner state that counts this call where ``idle``, although nothing inside ran.

    In every record a step number means a call of the outermost ``update``. The last verdict does
    not apply to this call. Groups of micro-batches keep counting only what they received.
    """

    def is_ours(node: object) -> bool:
        return "calls" in getattr(node, "_fields", ()) and type(node).__module__.startswith(_OURS)

    def visit(node: Any) -> Any:
        if not is_ours(node):
            return node
        new: dict[str, Any] = {"calls": increment(node.calls)}
        if "grad_factor" in node._fields:
            new |= {
                "grad_norm": measured.norm,
                "worst_leaf": measured.worst_leaf,
                "norm_limit": jnp.float32(unlimited()),
                "grad_factor": jnp.float32(1.0),
                "reason": jnp.int32(0),
            }
        if "rows" in node._fields:
            rings = ("rows", "leaf_rows", "part_rows")
            new |= {name: _empty_row(getattr(node, name), node) for name in rings}
        changed = {name: jnp.where(idle, value, getattr(node, name)) for name, value in new.items()}
        if "wrapped_state" in node._fields and "gradient_sum" not in node._fields:
            changed["wrapped_state"] = pass_by(node.wrapped_state, idle, measured)
        return node._replace(**changed)

    return jax.tree.map(visit, inner_state, is_leaf=is_ours)


def _empty_row(ring: jax.Array, record: Any) -> jax.Array:
    """Return a ring of a record with an empty row for this call."""
    every = record.rows.shape[0] // ring.shape[0]
    index = (record.calls // every) % ring.shape[0]
    return ring.at[index].set(
        jnp.where(record.calls % every == 0, jnp.zeros((), ring.dtype), ring[index])
    )
