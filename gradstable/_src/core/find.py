"""Find states of a given type in any optimizer state, however deep in chains and wrappers."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from gradstable._src.core.names import Unnamed

Found = TypeVar("Found")

# Fields of our states that hold trees like the parameters, or wrappers around such trees.
_LARGE = frozenset(
    {"wrapped_state", "snapshots", "rule_state", "gradient_sum"}
    | {"rows", "leaf_rows", "part_rows", "sampled_params"}
)


class Copy(NamedTuple):
    """What is known about a copy of a run without reading it."""

    taken_at: jax.Array  # shape=(), dtype=jnp.int32, the call before which it was taken (0: any)
    loss_level: jax.Array  # shape=(), dtype=jnp.float32, see ``upper_level`` of ``rollback``
    slot: jax.Array  # shape=(), dtype=jnp.int32, its row in the stacks


class Snapshots(NamedTuple):
    """Copies of a run, each taken before one of its steps. Their content is outdated.

    All of them are in one stack for each leaf, ``[copies, ...]``, in which they never move.
    """

    copies: tuple[Copy, ...]  # the newest first; two can have the same row
    kept_params: Unnamed
    kept_state: Unnamed  # of the inner transform
    kept_rules: Unnamed  # of the state of the rules


def find_all(opt_state: object, kind: type[Found]) -> list[tuple[str, Found]]:
    """Return path and value of each node of a type, except in snapshots, which are outdated.

    Reads plain optax states and Flax containers for them: ``nnx.Optimizer``, ``TrainState`` or
    their ``opt_state``.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(
        state_in(opt_state), is_leaf=lambda node: isinstance(node, (kind, Snapshots))
    )
    return [
        (jax.tree_util.keystr(path), _bare(node)) for path, node in flat if isinstance(node, kind)
    ]


def leads_back(inner_state: object) -> jax.Array | None:
    """Return whether the updates of a rollback inside lead back to a copy; ``None`` if none is."""
    nodes = jax.tree.leaves(inner_state, is_leaf=_is_rollback)
    going = [node.attempts > 0 for node in nodes if _is_rollback(node)]
    return jnp.any(jnp.stack(going)) if going else None


def state_in(holder: Any) -> Any:
    """Return the optimizer state in an ``nnx.Optimizer`` or ``TrainState``, or the argument."""
    # A state can expose the fields of what it wraps, and optax has states with a field so named.
    return holder if isinstance(holder, tuple) else getattr(holder, "opt_state", holder)


def find_one(opt_state: object, kind: type[Found], *, name: str, wrap: str) -> Found:
    """Return the only node of a type.

    Raises:
      ValueError: if there is none, or more than one. The message names what was expected, and
        shows how to wrap an optimizer so that there is one.
    """
    found = find_all(opt_state, kind)
    if len(found) != 1:
        msg = (
            f"{len(found)} {name}s found in this optimizer state, but there must be exactly one: "
            f"wrap the optimizer, as in {wrap}, and pass its state"
        )
        raise ValueError(msg)
    return found[0][1]


def present(opt_state: Any) -> Any:
    """Return an optimizer state with ``None`` in place of its snapshots."""
    return jax.tree.map(
        lambda node: None if isinstance(node, Snapshots) else node,
        opt_state,
        is_leaf=lambda node: isinstance(node, Snapshots),
    )


def slim(state: Any) -> Any:
    """Return one of our states with ``None`` for anything as large as the parameters.

    Counters and records are left, which are cheap to fetch from the device.
    """
    large = _LARGE.intersection(getattr(state, "_fields", ()))
    return state._replace(**dict.fromkeys(large)) if large else state


def _is_rollback(node: object) -> bool:
    return "snapshots" in getattr(node, "_fields", ())


def _bare(node: Found) -> Found:
    """Take the arrays out of Flax variables, by duck typing, since Flax is not imported."""

    def is_variable(leaf: Any) -> bool:
        return hasattr(leaf, "get_value")

    return jax.tree.map(
        lambda leaf: leaf.get_value() if is_variable(leaf) else leaf, node, is_leaf=is_variable
    )
