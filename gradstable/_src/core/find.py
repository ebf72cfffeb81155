"""Find the states of a kind in any optimizer state, however deep in chains, masks and wrappers."""

from typing import Any, NamedTuple, TypeVar

import jax

from gradstable._src.core.names import Unnamed

Found = TypeVar("Found")

# Fields of our states that hold trees like the parameters, or what wraps them.
_LARGE = frozenset(
    {"wrapped_state", "snapshots", "rule_state", "gradient_sum"}
    | {"rows", "leaf_rows", "sampled_params"}
)


class Snapshot(NamedTuple):
    """A copy of a run, from before one of its steps. What is in it is past."""

    taken_at: jax.Array  # shape=(), dtype=jnp.int32, the call before which it was taken (0: any)
    kept_params: Unnamed
    kept_state: Unnamed  # of the inner transform
    kept_rules: Unnamed  # of the state of the rules


def find_all(opt_state: object, kind: type[Found]) -> list[tuple[str, Found]]:
    """Return path and value of each node of a kind, except for those in copies, which are past.

    Reads plain optax states and what Flax makes of them: ``nnx.Optimizer``, ``TrainState`` or
    their ``opt_state``.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(
        state_in(opt_state), is_leaf=lambda node: isinstance(node, (kind, Snapshot))
    )
    return [
        (jax.tree_util.keystr(path), _bare(node)) for path, node in flat if isinstance(node, kind)
    ]


def state_in(holder: Any) -> Any:
    """Return the optimizer state in an ``nnx.Optimizer`` or a ``TrainState``, or what is given."""
    # A state may answer as what it wraps does, and states of optax have a field of this name.
    return holder if isinstance(holder, tuple) else getattr(holder, "opt_state", holder)


def find_one(opt_state: object, kind: type[Found], *, name: str, wrap: str) -> Found:
    """Return the only node of a kind.

    Raises:
      ValueError: if there is none, or more than one; it names what is looked for, and shows how an
        optimizer is wrapped so that there is.
    """
    found = find_all(opt_state, kind)
    if len(found) != 1:
        msg = (
            f"{len(found)} {name}s found in this optimizer state, and it must be one: wrap the "
            f"optimizer, as in {wrap}, and pass its state"
        )
        raise ValueError(msg)
    return found[0][1]


def present(opt_state: Any) -> Any:
    """Return an optimizer state with ``None`` for the copies in it."""
    return jax.tree.map(
        lambda node: None if isinstance(node, Snapshot) else node,
        opt_state,
        is_leaf=lambda node: isinstance(node, Snapshot),
    )


def told(state: Any) -> Any:
    """Return a state of ours with ``None`` for what is as large as the parameters.

    What is left are counters and records: fetching them from the device is cheap.
    """
    large = _LARGE.intersection(getattr(state, "_fields", ()))
    return state._replace(**dict.fromkeys(large)) if large else state


def _bare(node: Found) -> Found:
    """Take the arrays out of Flax variables, by what they can do: Flax is not imported."""

    def is_variable(leaf: Any) -> bool:
        return hasattr(leaf, "get_value")

    return jax.tree.map(
        lambda leaf: leaf.get_value() if is_variable(leaf) else leaf, node, is_leaf=is_variable
    )
