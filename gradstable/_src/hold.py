"""Hold a transform's state where it is defined, so that rejecting a step costs nothing.

A rejected step must keep the old state. ``where(accept, new, old)`` *around* an update makes
XLA copy every moment: the parameter update reads the unselected new moment while the output
aliases the old one. Select each new state value *at the point where it is defined*, and
everything downstream reads the held value, so nothing is copied.

This works for any optax transform from the outside: trace ``update`` to a jaxpr, evaluate it
equation by equation, and where an equation defines a leaf of the new state, put the held value
in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from gradstable._src.core.derivatives import handed_on, where_accepted
from gradstable._src.core.eager import is_traced, when_repeated
from gradstable._src.core.equations import (
    Equations,
    Update,
    evaluate,
    is_array,
    is_input,
    is_variable,
    trace,
)
from gradstable._src.core.in_one import in_one
from gradstable._src.core.select import select, select_finite
from gradstable._src.core.tree_checks import check_same_tree, leaves_by_path

if TYPE_CHECKING:
    from jax.extend.core import Literal, Var


def hold(
    update: Update,
    accept: jax.Array,
    updates: object,
    state: object,
    params: object,
    *,
    entries: bool = True,
    equations: Equations | None = None,
) -> tuple[Any, Any]:
    r"""Run ``update``, but keep the old state where the new one must not be taken.

    Every entry of every state leaf becomes

    .. math:: s' = \begin{cases} s_{new} & accept \wedge s_{new}\ \text{is finite} \\
                                 s_{old} & \text{else} \end{cases}

    The first condition is exact: a rejected step leaves the state bit-identical. The second
    is a last line of defense, for the rare entry that overflows *inside* an accepted update. In a
    dtype of small range, such as float16, an overflow becomes the largest number instead.

    The derivative of an accepted step is that of ``update``. Through a rejected step it is zero,
    except for the state, which is passed on.

    Args:
      update: a function ``(updates, state, params) -> (updates, state)``.
      accept: bool scalar.
      updates: tree of gradients.
      state: tree of arrays; its leaves keep their shapes and dtypes, whatever ``update`` does.
      params: tree of parameters, or ``None``.
      entries: whether to discard single entries too. Not around a guard, which does so itself, and
        whose state reports norms that are not finite.
      equations: the result of ``trace`` for ``update`` and arguments of these types, if known.

    Returns:
      The pair that ``update`` returns: updates computed from held values (meaningless where
      the step is rejected, and for the caller to discard), and the held state.

    Raises:
      ValueError: if ``update`` changes the structure of the state or the shape of a leaf.
    """
    choose = select_finite if entries else select
    given = jax.tree.leaves((updates, state, params))
    if equations is None and not is_traced(accept, given):
        # Outside jit nothing is fused, so there is nothing to save, and functions compiled on
        # their own inside ``update`` give the same bits as without the guard.
        new_updates, new_state = update(updates if accept else _zeros(updates), state, params)
        _check_same_state(new_state, state)
        choose_all = _choose_finite if entries else _choose
        return new_updates, choose_all(accept, new_state, state)
    if equations is None:
        equations = trace(update, updates, state, params)
    return _evaluate(equations, accept, given, state, choose)


def _evaluate(
    equations: Equations, accept: jax.Array, given: list[Any], state: Any, choose: Any
) -> tuple[Any, Any]:
    shapes = jax.tree.unflatten(equations.results, equations.shapes)
    _check_same_state(shapes[1], state)
    old_leaves, state_tree = jax.tree.flatten(state)
    outputs, sources = equations.outputs, equations.sources
    # Where an inner hold passes on its held value, the update reads that value.
    state_outs = [
        sources.get(atom, atom) if is_variable(atom) else atom
        for atom in outputs[equations.num_updates :]
    ]

    closed, num_consts = equations.closed, len(equations.closed.consts)
    arrays = [leaf for leaf in given if is_input(leaf)]
    gated = where_accepted(accept, [*closed.consts, *arrays])
    seen = {id(leaf): inside for leaf, inside in zip(arrays, gated[num_consts:], strict=True)}
    old_inside = [seen[id(leaf)] for leaf in old_leaves]

    old_of: dict[Var, jax.Array] = {}
    dtypes = (leaf.dtype for leaf in equations.shapes[equations.num_updates :])
    for var, dtype, old in zip(state_outs, dtypes, old_inside, strict=True):
        # A variable can be held for one leaf only, and only if it has the leaf's dtype.
        if is_variable(var) and dtype == old.dtype:
            old_of.setdefault(var, old)
    raw: dict[Var, jax.Array] = {}

    def define(var: Var, value: jax.Array) -> jax.Array:
        if var not in old_of:
            return value
        raw[var] = value
        return choose(accept, value, old_of[var])

    values = iter(evaluate(closed, gated[:num_consts], gated[num_consts:], define))
    leaves = [
        shape if atom is None else next(values)
        for atom, shape in zip(outputs, equations.shapes, strict=True)
    ]

    def held(var: Var | Literal | None, value: jax.Array, old: jax.Array) -> jax.Array:
        if value is old:  # passed through
            return old
        if is_variable(var) and var in raw:
            if old_of[var] is old:
                return value
            value = raw[var]
        # Defined by no equation (a literal, an argument), or already held for another leaf.
        return choose(accept, jnp.asarray(value), old)

    kept = list(map(held, state_outs, leaves[equations.num_updates :], old_inside))
    new_leaves = in_one(handed_on(accept, kept, old_leaves))
    of_updates = jax.tree.structure(shapes[0])
    return (
        jax.tree.unflatten(of_updates, leaves[: equations.num_updates]),
        jax.tree.unflatten(state_tree, new_leaves),
    )


@when_repeated
def _choose(accept: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: select(accept, jnp.asarray(n), o), new, old)


@when_repeated
def _choose_finite(accept: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: select_finite(accept, jnp.asarray(n), o), new, old)


def _check_same_state(new: object, old: object) -> None:
    check_same_tree("new state", leaves_by_path(new), "state", leaves_by_path(old))


def _zeros(updates: Any) -> Any:
    """Return zero gradients, so that the result of a rejected step has no derivative either."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if is_array(leaf) else leaf, updates)
