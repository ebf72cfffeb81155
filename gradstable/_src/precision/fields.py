"""The statistics in the state of any transform, found by the names of their fields."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

# In these states of optax, a field means what it means in no other: nu may be negative.
_OTHERWISE = ("ScaleBySM3State", "SophiaState")


Signs: TypeAlias = Mapping[str, bool]  # for each name of a field whether it is signed


class Field(NamedTuple):
    """A statistic in a state."""

    signed: bool
    tree: Any


def fields(state: Any, signs: Signs, like: Any) -> list[Field]:
    """Return the statistics in fields of given names, in order.

    Args:
      state: nested named tuples, as the states of optax and ours are, in any containers.
      signs: the names.
      like: a tree with the structure of the parameters. What looks like the parameters is not
        searched, since they may have fields of these names.
    """
    found: list[Field] = []

    def note(signed: bool, tree: Any) -> Any:
        found.append(Field(signed, tree))
        return tree

    _map(note, state, signs, like)
    return found


def with_fields(state: Any, signs: Signs, like: Any, trees: Iterable[Any]) -> Any:
    """Return a state with other trees in the fields that ``fields`` finds, in its order."""
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
