"""Names of fields and keys, by which optax finds values in a state: only the optimizer has them.

``optax.tree.get(state, "count")`` looks at every named tuple and every dictionary in a state, and
refuses to answer where it finds two. So the fields of our states have names that optax uses
nowhere, and trees like the parameters, or copies of states, are kept without the names in them.
"""

from collections import OrderedDict
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

State = TypeVar("State")

# Before each key of a dictionary in a tree without names.
MARK = "~"


class Unnamed(NamedTuple):
    """A tree that a wrapper keeps for itself, without names: see ``without_names``."""

    unnamed: Any


def without_names(tree: Any, params: Any) -> Unnamed:
    """Return a tree whose leaves no reader of optax finds by name, in their order.

    Named tuples become tuples, and keys of dictionaries that are strings begin with a mark.

    Args:
      tree: of arrays, like the parameters or a state.
      params: the parameters. ``optax.tree.map_params`` puts a placeholder in their place, to learn
        which parts of a state are like them. For it the tree is a single leaf, which it takes for
        no parameter's: to it, trees of other keys are not like the parameters.
    """
    return Unnamed(jnp.zeros(()) if _is_placeholder(params) else _strip(tree))


def with_names(kept: Unnamed, like: Any) -> Any:
    """Return the tree again, in the structure of another one."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(kept))


def named_again(kept: Unnamed) -> Any:
    """Return the tree with its keys; what was a named tuple stays a tuple."""

    def restore(node: Any) -> Any:
        if isinstance(node, dict):
            pairs = [(_unmarked(key), restore(child)) for key, child in node.items()]
            return type(node)(pairs)
        return _rebuilt(node, restore)

    return restore(kept.unnamed)


def answers_as_inner(state: type[State]) -> type[State]:
    """Let the state of a wrapper have the attributes of what it wraps, where it is a named tuple.

    Some readers ask for an attribute, as ``optax.contrib.schedule_free_eval_params`` does, and a
    learning rate is set by ``state.hyperparams["learning_rate"] = 1e-4``. Apart from that, what is
    wrapped can be read as ``inner_state``, as in the wrappers of optax.
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
        # Sorted as JAX sorts them, which a mark before all of them does not change.
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
    """Whether this is no tree of parameters: a node of a type of its own without any children."""
    if params is None or isinstance(params, (dict, list, tuple)):
        return False
    structure = jax.tree.structure(params)
    return structure.num_nodes == 1 and not structure.num_leaves
