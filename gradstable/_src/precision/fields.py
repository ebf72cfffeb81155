"""Find the statistics in the state of any transform by the names of their fields."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

# In these optax states, fields have an unusual meaning: nu can be negative.
_OTHERWISE = ("ScaleBySM3State", "SophiaState")


Signs: TypeAlias = Mapping[str, bool]  # whether each field, by name, is signed


class Field(NamedTuple):
    """A statistic in a state."""

    signed: bool
    tree: Any


def fields(state: Any, signs: Signs, like: Any) -> list[Field]:
    """Return the statistics in the fields with the given names, in order.

    Args:
      state: nested named tuples, like the states of optax and gradstable, in any containers.
      signs: the names, and whether each is signed.
      like: a tree with the structure of the parameters. Subtrees with that structure are not
        searched, since parameters can have fields with these names.
    """
    found: list[Field] = []

    def note(signed: bool, tree: Any) -> Any:
        found.append(Field(signed, tree))
        return tree

    _map(note, state, signs, like)
    return found


def with_fields(state: Any, signs: Signs, like: Any, trees: Iterable[Any]) -> Any:
    """Return a state with new trees in the fields that ``fields`` finds, in the same order."""
    following = iter(trees)
    return _map(lambda *_: next(following), state, signs, like)


def _map(change: Callable[[bool, Any], Any], state: Any, signs: Signs, like: Any) -> Any:
    params = jax.tree.structure(like)

    def is_params(node: Any) -> bool:
        return jax.tree.structure(node) == params

    def visit(node: Any) -> Any:
        if not _has_fields(node, signs) or is_params(node):
            return node
        new = {
            name: change(signs[name], value) if name in signs else descend(value)
            for name, value in node._asdict().items()
        }
        return type(node)(**new)

    def descend(node: Any) -> Any:
        return jax.tree.map(visit, node, is_leaf=lambda n: _has_fields(n, signs) or is_params(n))

    return descend(state)


def _has_fields(node: Any, signs: Signs) -> bool:
    if not isinstance(node, tuple) or type(node).__name__ in _OTHERWISE:
        return False
    return any(name in signs for name in getattr(node, "_fields", ()))
