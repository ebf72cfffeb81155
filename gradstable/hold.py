"""Hold a transform's state where it is defined, so that rejecting a step costs nothing.

A rejected step must keep the old state. ``where(accept, new, old)`` *around* an update makes
XLA copy every moment: the parameter update reads the unselected new moment while the output
aliases the old one. Select each new state value *at the point where it is defined*, and
everything downstream reads the held value; nothing is copied.

That can be done to any optax transform from outside: trace ``update`` to a jaxpr, and
evaluate it equation by equation; where an equation defines a leaf of the new state, put the
held value in its place.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, Var

from gradstable._core.checks import check_same_tree, leaves_by_path
from gradstable._core.select import select, select_finite

Update = Callable[[Any, Any, Any], tuple[Any, Any]]


def hold(
    update: Update,
    accept: jax.Array,
    updates: object,
    state: object,
    params: object,
    *,
    entries: bool = True,
) -> tuple[Any, Any]:
    r"""Run ``update``, but keep the old state where the new one must not be taken.

    Every entry of every state leaf becomes

    .. math:: s' = \begin{cases} s_{new} & accept \wedge s_{new}\ \text{is finite} \\
                                 s_{old} & \text{else} \end{cases}

    The first condition is exact: a rejected step leaves the state bit-identical. The second
    is a last line of defense, for the rare entry that overflows *inside* an accepted update.

    Args:
      update: a function ``(updates, state, params) -> (updates, state)``.
      accept: bool scalar.
      updates: tree of gradients.
      state: tree of arrays; its leaves keep their shapes and dtypes, whatever ``update`` does.
      params: tree of parameters, or ``None``.
      entries: whether to discard single entries too. Not around a guard, which does it itself, and
        whose state reports norms that are not finite.

    Returns:
      The pair that ``update`` returns: updates computed from held values (meaningless where
      the step is rejected, and for the caller to discard), and the held state.

    Raises:
      ValueError: if ``update`` changes the structure of the state or the shape of a leaf.
    """
    choose = select_finite if entries else select
    args = jax.tree.leaves((updates, state, params))
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in (accept, *args)):
        # Outside jit nothing is fused, so there is nothing to save; and functions that are
        # compiled on their own inside ``update`` give the same bits as without us.
        new_updates, new_state = update(updates, state, params)
        _check_same_state(new_state, state)
        return new_updates, jax.tree.map(
            lambda new, old: choose(accept, jnp.asarray(new), old), new_state, state
        )

    jaxpr, shapes = jax.make_jaxpr(update, return_shape=True)(updates, state, params)
    _check_same_state(shapes[1], state)
    old_leaves, state_tree = jax.tree.flatten(state)
    num_updates = len(jax.tree.leaves(shapes[0]))
    state_outs = jaxpr.jaxpr.outvars[num_updates:]

    old_of: dict[Var, jax.Array] = {}
    dtypes = (shape.dtype for shape in jax.tree.leaves(shapes[1]))
    for var, dtype, old in zip(state_outs, dtypes, old_leaves, strict=True):
        # A variable can be held for one leaf only, and only if it has the leaf's dtype.
        if isinstance(var, Var) and dtype == old.dtype:
            old_of.setdefault(var, old)
    raw: dict[Var, jax.Array] = {}

    def define(var: Var, value: jax.Array) -> jax.Array:
        if var not in old_of:
            return value
        raw[var] = value
        return choose(accept, value, old_of[var])

    outs = _evaluate(jaxpr, args, define)

    def held(var: Var | Literal, value: jax.Array, old: jax.Array) -> jax.Array:
        if value is old:  # passed through
            return old
        if isinstance(var, Var) and var in raw:
            if old_of[var] is old:
                return value
            value = raw[var]
        # Defined by no equation (a literal, an argument), or already held for another leaf.
        return choose(accept, jnp.asarray(value), old)

    new_leaves = map(held, state_outs, outs[num_updates:], old_leaves)
    new_updates = jax.tree.unflatten(jax.tree.structure(shapes[0]), outs[:num_updates])
    return new_updates, jax.tree.unflatten(state_tree, new_leaves)


def _check_same_state(new: object, old: object) -> None:
    check_same_tree("new state", leaves_by_path(new), "state", leaves_by_path(old))


def _evaluate(
    closed: ClosedJaxpr, args: Sequence[Any], define: Callable[[Var, Any], Any]
) -> list[Any]:
    """Evaluate a jaxpr; ``define`` may replace the value that an equation gives a variable.

    Equations with jaxprs of their own (``jit``, ``cond``, ``custom_jvp``, ...) are bound as
    they are: a leaf defined inside is held after them, which is right, if less economical.
    """
    jaxpr = closed.jaxpr
    env: dict[Var, Any] = dict(
        zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True)
    )

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        bind_params = eqn.primitive.get_bind_params(eqn.params)
        with eqn.ctx.manager:
            result = eqn.primitive.bind(*map(read, eqn.invars), **bind_params)
        values = result if eqn.primitive.multiple_results else [result]
        for var, value in zip(eqn.outvars, values, strict=True):
            env[var] = define(var, value)
    return [read(atom) for atom in jaxpr.outvars]
