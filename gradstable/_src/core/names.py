"""Names of fields and keys, by which optax finds values in a state: reserved for the optimizer.

``optax.tree.get(state, "count")`` looks at every named tuple and every dictionary in a state, and
raises if it finds two matches. So the fields of our states have names that optax never uses, and
trees like the parameters, or copies of states, are kept without their names.
"""

from collections import OrderedDict
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

State = TypeVar("State")

# Precedes each key of a dictionary in a tree without names.
MARK = "~"


class Unnamed(NamedTuple):
    """A tree that a wrapper keeps for its own use, without names: see ``without_names``."""

    unnamed: Any


def without_names(tree: Any, params: Any) -> Unnamed:
    """Return a tree with its leaves in the same order, which optax cannot find by name.

    Named tuples become tuples, and a mark is put before string keys of dictionaries.

    Args:
      tree: a tree of arrays, like the parameters or a state.
      params: the parameters. ``optax.tree.map_params`` passes a placeholder instead, to learn which
        parts of a state are like them. In that case the result is a single leaf, which does not
        count as a parameter: optax would not recognize a tree with other keys either.
    """
    return Unnamed(jnp.zeros(()) if _is_placeholder(params) else _strip(tree))


def with_names(kept: Unnamed, like: Any) -> Any:
    """Return the original tree, in the structure of ``like``."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(kept))


def named_again(kept: Unnamed) -> Any:
    """Return the tree with its original keys; named tuples remain plain tuples."""

    def restore(node: Any) -> Any:
        if isinstance(node, dict):
            pairs = [(_unmarked(key), restore(child)) for key, child in node.items()]
            return type(node)(pairs)
        return _rebuilt(node, restore)

    return restore(kept.unnamed)


def answers_as_inner(state: type[State]) -> type[State]:
    """Give the state of a wrapper the attributes of the named tuple that it wraps, if any.

    Some readers access an attribute, as ``optax.contrib.schedule_free_eval_params`` does, and users
    set a learning rate by ``state.hyperparams["learning_rate"] = 1e-4``. The wrapped state is also
    available as ``inner_state``, as in optax's own wrappers.
    """

    def answer(self: Any, name: str) -> Any:
        inner = self.wrapped_state
        if not name.startswith("_") and _has_field(inner, name):
            return getattr(inner, name)
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)

    changed: Any = state
    changed.inner_state = property(lambda self: self.wrapped_state)
    changed.__getattr__ = answer
    return changed


def _has_field(state: Any, name: str) -> bool:
    fields = getattr(type(state), "_fields", ())
    return name in fields or ("wrapped_state" in fields and _has_field(state.wrapped_state, name))


def _strip(node: Any) -> Any:
    if isinstance(node, dict):
        # Sorted as JAX sorts them; a mark before each of them does not change the order.
        keys = node.keys() if isinstance(node, OrderedDict) else sorted(node)
        pairs = [(_marked(key), _strip(node[key])) for key in keys]
        return OrderedDict(pairs) if isinstance(node, OrderedDict) else dict(pairs)
    if isinstance(node, tuple):
        return tuple(map(_strip, node))
    return _rebuilt(node, _strip)


def _rebuilt(node: Any, change: Any) -> Any:
    children, structure = jax.tree.flatten(node, is_leaf=lambda other: other is not node)
    if jax.tree_util.treedef_is_leaf(structure):
        return node
    return jax.tree.unflatten(structure, map(change, children))


def _marked(key: Any) -> Any:
    return f"{MARK}{key}" if isinstance(key, str) else key


def _unmarked(key: Any) -> Any:
    return key.removeprefix(MARK) if isinstance(key, str) else key


def _is_placeholder(params: Any) -> bool:
    """Whether this is optax's placeholder for parameters: a node of its own type, no children."""
    if params is None or isinstance(params, (dict, list, tuple)):
        return False
    structure = jax.tree.structure(params)
    return structure.num_nodes == 1 and not structure.num_leaves
