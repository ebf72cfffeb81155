"""Find the states of a kind in any optimizer state, however deep in chains, masks and wrappers."""

from typing import Any, TypeVar

import jax

Found = TypeVar("Found")


def find_all(opt_state: object, kind: type[Found]) -> list[tuple[str, Found]]:
    """Return path and value of each node of a kind.

    Reads plain optax states and what Flax makes of them: ``nnx.Optimizer``, ``TrainState`` or
    their ``opt_state``.
    """
    tree = getattr(opt_state, "opt_state", opt_state)
    flat, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda node: isinstance(node, kind)
    )
    return [
        (jax.tree_util.keystr(path), _bare(node)) for path, node in flat if isinstance(node, kind)
    ]


def _bare(node: Found) -> Found:
    """Take the arrays out of Flax variables, by what they can do: Flax is not imported."""

    def is_variable(leaf: Any) -> bool:
        return hasattr(leaf, "get_value")

    return jax.tree.map(
        lambda leaf: leaf.get_value() if is_variable(leaf) else leaf, node, is_leaf=is_variable
    )
