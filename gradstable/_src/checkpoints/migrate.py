"""Migrate a saved state to another transform: with a guard, without one, or with other rules."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstable._src.core.checks import check_transform
from gradstable._src.core.select import own_arrays

# Where wrappers, ours and optax's, keep the state of what they wrap.
_INNER = ("wrapped_state", "inner_state", "inner_opt_state")
# The only field that depends on the rules: it starts over when they change.
_RULES = "rule_state"

_Step = tuple[int, str]  # which child of a node, and how it is written
_Place = tuple[_Step, ...]


def migrate_state(
    old_state: optax.OptState, tx: optax.GradientTransformation, *, params: optax.Params
) -> optax.OptState:
    """Return the state of a transform that continues where that of another one stopped.

    Use it to put a guard around a run that began without one, to remove it, to change its rules,
    or to add wrappers: the optimizer keeps its moments and counts, bit for bit. Load the checkpoint
    with the state of the old transform as the target, and pass the result as ``old_state``.

    A state is made of layers: wrappers outside (``guard``, ``record``, ``accumulate``,
    ``loss_scale``, ``kahan``, and optax's ``apply_if_finite`` or ``MultiSteps``), the optimizer
    innermost. The state of the optimizer is copied unchanged to the one place in the new state that
    has the same structure, shapes and dtypes. If both have the same wrapper, its state is copied
    too, except for that of the rules, if they changed. Wrappers and links of a chain that only the
    new transform has start over, a schedule at its step 0. Wrappers that only the old one has are
    dropped with their state, such as the gradients of a group that is not full.

    The optimizer itself must be the same. A link of a chain that has a state counts as a part of
    it, so a schedule cannot be removed.

    Args:
      old_state: the state of the old transform, with JAX or NumPy arrays, in the types that its
        ``init`` returns.
      tx: the new transform.
      params: the parameters, as for ``tx.init``.

    Returns:
      A state like ``tx.init(params)`` in structure, shapes and dtypes, with the old values where
      there are any. All leaves are copies. Inside ``jax.jit`` the moments that are replaced are
      never created, which saves their memory.

    Raises:
      TypeError: if ``tx`` is not a transform.
      ValueError: if the inner optimizer is a different one (the message names the first leaf that
        differs), or occurs more than once.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"w": jnp.ones(3)}
      >>> bare = optax.adamw(1e-3)
      >>> _, old_state = bare.update({"w": jnp.full(3, 2.0)}, bare.init(params), params)
      >>> tx = gs.record(gs.guard(optax.adamw(1e-3), gs.rules.global_norm(1.0)))
      >>> state = gs.checkpoints.migrate_state(old_state, tx, params=params)
      >>> state.inner_state.inner_state[0].mu["w"].round(1).tolist()
      [0.2, 0.2, 0.2]
    """
    new_state = check_transform("tx", tx).init(params)
    layers = list(_layers(old_state))
    for depth, (_, layer) in enumerate(layers):
        places = list(_places(new_state, layer))
        if not places:
            continue
        if len(places) > 1 and jax.tree.leaves(layer):
            raise ValueError(_ambiguous(places))
        new_state = _put(new_state, places[0], layer)
        new_state = _carry(new_state, places[0], [wrapper for _, wrapper in layers[:depth]])
        return own_arrays(new_state)
    raise ValueError(_unlike(layers, list(_layers(new_state))))


def _layers(state: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and value of a state, of the state that it wraps, and so on, from outside in."""
    path = ""
    while True:
        yield path, state
        inner = _inner_index(state)
        if inner is None and type(state) is tuple:
            # Links of a chain without a state, such as a clip, can be added or removed.
            full = [index for index, link in enumerate(state) if jax.tree.leaves(link)]
            inner = full[0] if len(full) == 1 else None
        if inner is None:
            return
        name, state = _children(state)[inner]
        path += name


def _places(state: Any, wanted: Any) -> Iterator[_Place]:
    """Yield the places where a part of a state has the types of another state."""
    wanted_types = _types(wanted)

    def search(node: Any, place: _Place) -> Iterator[_Place]:
        if _types(node) == wanted_types:
            yield place
            return
        inner = _inner_index(node)
        # Trees like the parameters that a wrapper keeps are not the state of an optimizer.
        for index, (name, child) in enumerate(_children(node)):
            if inner in (None, index):
                yield from search(child, (*place, (index, name)))

    return search(state, ())


def _carry(new_state: Any, place: _Place, wrappers: list[Any]) -> Any:
    """Return the new state with the old state of the wrappers that it shares, around this place."""
    around = [place[:depth] for depth in range(len(place))]
    for wrapper in wrappers:
        if _inner_index(wrapper) is None:
            continue
        for at in around:
            node = _get(new_state, at)
            if type(node) is type(wrapper):
                new_state = _put(new_state, at, _merge(node, wrapper))
                around = [other for other in around if len(other) > len(at)]
                break
    return new_state


def _merge(new: Any, old: Any) -> Any:
    """Return one wrapper's state with the content of the old one: all of it, or nothing.

    Its parts belong together, such as a count and the ring buffer that it counts.
    """
    same = {
        field
        for field in new._fields
        if field not in _INNER and _types(getattr(new, field)) == _types(getattr(old, field))
    }
    if not same | {_RULES, *_INNER} >= {*new._fields}:
        return new
    return new._replace(**{field: getattr(old, field) for field in same})


def _inner_index(node: Any) -> int | None:
    fields = getattr(node, "_fields", ())
    return next((index for index, field in enumerate(fields) if field in _INNER), None)


def _children(node: Any) -> list[tuple[str, Any]]:
    """Return the children of a node of a tree, each with its name; none of a leaf."""
    fields = getattr(node, "_fields", None)
    if fields is not None:
        return [(f".{field}", getattr(node, field)) for field in fields]
    if type(node) in (tuple, list):
        return [(f"[{index}]", child) for index, child in enumerate(node)]
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)
    return [(jax.tree_util.keystr(path), child) for path, child in flat if path]


def _get(tree: Any, place: _Place) -> Any:
    for index, _ in place:
        tree = _children(tree)[index][1]
    return tree


def _put(tree: Any, place: _Place, value: Any) -> Any:
    """Return a tree with another value at one place."""
    if not place:
        return value
    (index, _), *rest = place
    children = [child for _, child in _children(tree)]
    children[index] = _put(children[index], tuple(rest), value)
    if hasattr(tree, "_fields"):
        return type(tree)(*children)
    if type(tree) in (tuple, list):
        return type(tree)(children)
    return jax.tree.structure(tree, is_leaf=lambda other: other is not tree).unflatten(children)


def _types(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [_type(leaf) for leaf in leaves]


def _type(leaf: Any) -> tuple[tuple[int, ...], Any]:
    return np.shape(leaf), getattr(leaf, "dtype", None) or jnp.result_type(leaf)


def _path(place: _Place) -> str:
    return "".join(name for _, name in place)


def _ambiguous(places: list[_Place]) -> str:
    return (
        f"old_state fits into the state of tx in {len(places)} places, at "
        f"{_path(places[0]) or 'the root'} and at {_path(places[1])}: insert it yourself with "
        "_replace"
    )


def _unlike(old_layers: list[tuple[str, Any]], new_layers: list[tuple[str, Any]]) -> str:
    """Name the first leaf of the old optimizer that differs from the most similar layer."""
    # Wrappers can be removed. What remains is the optimizer, with all links of its chain.
    old_path, old = next(layer for layer in old_layers if _inner_index(layer[1]) is None)
    ours = _shown(old)

    def likeness(layer: tuple[str, Any]) -> tuple[int, bool]:
        return len(ours.items() & _shown(layer[1]).items()), _inner_index(layer[1]) is None

    new_path, new = max(new_layers, key=likeness)
    theirs = _shown(new)
    difference = "the leaves are the same, but the types of the nodes are not"
    for path in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(path, "nothing"), theirs.get(path, "nothing")
        if here != there:
            difference = (
                f"{here} at old_state{old_path}{path}, but {there} at {new_path}{path} of tx"
            )
            break
    return (
        f"no part of the state of tx is like old_state: {difference}. The inner optimizer and the "
        "parameters must be those that old_state was made with; only wrappers and rules can "
        "differ. Load old_state with the state of the old transform as the target, so that it "
        "has the original types"
    )


def _shown(tree: Any) -> dict[str, str]:
    """Return dtype and shape of the leaves of a tree, by path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    shown = {}
    for path, leaf in flat:
        shape, dtype = _type(leaf)
        shown[jax.tree_util.keystr(path)] = f"{dtype}{list(shape)}"
    return shown
