"""Find the parts of an optimizer state that record what was done."""

from typing import Any, TypeVar

import jax

T = TypeVar("T")


def find_all(state: Any, kind: type[T]) -> list[T]:
    """Return all nodes of this kind in a state, at any depth."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]
