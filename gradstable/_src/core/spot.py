"""A few entries of a result, computed from the same entries of what it is computed from.

XLA does not fuse a slice with a computation that has another reader and contains a quotient or a
root: it writes the whole result first, 3 words per parameter for the update of Adam. So slices are
moved up here, through elementwise equations, to arrays that exist in memory anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp

from gradstable._src.core.eager import is_traced
from gradstable._src.core.equations import (
    evaluate,
    inner_jaxpr,
    is_array,
    is_variable,
    trace,
)
from gradstable._src.core.explicit import is_split

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

    from gradstable._src.core.equations import Equations, Update

# fmt: off
_ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "clamp", "complex", "conj", "convert_element_type", "copy", "cos", "cosh", "div",
    "eq", "erf", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow",
    "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "not", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
})
# fmt: on

Take = Callable[[Any], Any]


def run_and_take(
    update: Update, take: Take, updates: Any, state: Any, params: Any
) -> tuple[Any, Any, list[Any]]:
    """Return what an update returns, and some entries of each leaf of the updates.

    Args:
      update: a function ``(updates, state, params) -> (updates, state)``.
      take: slices an array: entries depend on its shape alone.
      updates: tree of gradients.
      state: tree of arrays.
      params: tree of parameters, or ``None``.

    Returns:
      The updates, the state, and the entries of each leaf of the updates; a leaf that is not an
      array is unchanged.
    """
    if not is_traced(jax.tree.leaves((updates, state, params))):
        stepped, new_state = update(updates, state, params)
        return stepped, new_state, [_taken(take, leaf) for leaf in jax.tree.leaves(stepped)]
    equations = trace(update, updates, state, params)
    jaxpr, given = equations.closed.jaxpr, (*equations.closed.consts, *equations.args)
    known: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), given, strict=True))

    def remember(var: Var, value: Any) -> Any:
        known[var] = value
        return value

    values = evaluate(equations.closed, equations.closed.consts, equations.args, remember)
    stepped, new_state = equations.results_of(values)
    return stepped, new_state, _entries_of_updates(equations, take, known, stepped)


def _entries_of_updates(
    equations: Equations, take: Take, known: dict[Var, Any], stepped: Any
) -> list[Any]:
    leaves = jax.tree.leaves(stepped)
    if any(is_array(leaf) and is_split(leaf) for leaf in leaves):
        return [_taken(take, leaf) for leaf in leaves]  # slices have other types
    sources = equations.sources
    atoms = equations.outputs
    in_memory = {atom for atom in atoms[equations.num_updates :] if is_variable(atom)}
    in_memory |= {sources[var] for var in in_memory if var in sources}
    finder = _Finder(equations.closed.jaxpr, take, known.__getitem__, in_memory)
    of_updates = zip(atoms[: equations.num_updates], leaves, strict=True)
    return [
        finder.entries(atom) if is_variable(atom) else _taken(take, leaf)
        for atom, leaf in of_updates
    ]


class _Finder:
    """The entries of the variables of one jaxpr, each computed once."""

    def __init__(
        self,
        jaxpr: Jaxpr,
        take: Take,
        value: Callable[[Var], Any],
        in_memory: set[Var],
        found: dict[Var, Any] | None = None,
    ) -> None:
        self._made_by = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
        self._take, self._value, self._in_memory = take, value, in_memory
        self._found: dict[Var, Any] = dict(found or {})

    def entries(self, var: Var) -> Any:
        """Return the entries of one variable."""
        # Without recursion: the update of an optimizer can be a long chain of equations.
        waiting = [var]
        while waiting:
            now = waiting[-1]
            if now in self._found:
                waiting.pop()
                continue
            needed = [v for v in self._reads(now) if v not in self._found]
            if needed:
                waiting += needed
            else:
                self._found[now] = self._compute(now)
        return self._found[var]

    def _reads(self, var: Var) -> list[Var]:
        """Return the arrays whose entries those of a variable are computed from."""
        eqn = self._made_by.get(var)
        if eqn is None or var in self._in_memory:
            return []
        if eqn.primitive.name in _ELEMENTWISE:
            return [atom for atom in eqn.invars if is_variable(atom) and _shape(atom)]
        if inner_jaxpr(eqn) is not None:
            return [
                atom for atom in eqn.invars if is_variable(atom) and _shape(atom) == _shape(var)
            ]
        return []

    def _compute(self, var: Var) -> Any:
        eqn = self._made_by.get(var)
        if eqn is None or var in self._in_memory:
            return self._take(self._value(var))
        name = eqn.primitive.name
        if name == "broadcast_in_dim" and not _shape(eqn.invars[0]):
            shape = jax.eval_shape(self._take, var.aval).shape
            return jnp.broadcast_to(self._read(eqn.invars[0]), shape)
        if name in _ELEMENTWISE:
            with eqn.ctx.manager:
                given = map(self._read, eqn.invars)
                return eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
        inner = inner_jaxpr(eqn)
        return self._take(self._value(var)) if inner is None else self._inside(eqn, inner, var)

    def _inside(self, eqn: JaxprEqn, inner: Jaxpr, var: Var) -> Any:
        """Return the entries of a result of a function that is called."""
        given = dict(zip(inner.invars, eqn.invars, strict=True))
        found = {
            own: self._found[atom]
            for own, atom in given.items()
            if is_variable(atom) and atom in self._found
        }

        def value(own: Var) -> Any:
            return self._read(given[own]) if own in given else _unknown()

        result = inner.outvars[eqn.outvars.index(var)]
        if not is_variable(result):
            return self._take(self._value(var))
        try:
            return _Finder(inner, self._take, value, set(), found).entries(result)
        except _UnknownError:
            return self._take(self._value(var))

    def _read(self, atom: Var | Literal) -> Any:
        if not is_variable(atom):
            return cast("Literal", atom).val
        return self._found[atom] if _shape(atom) else self._value(atom)


class _UnknownError(Exception):
    """A value inside a function that is called, which only the call itself computes."""


def _unknown() -> Any:
    raise _UnknownError


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _taken(take: Take, leaf: Any) -> Any:
    return take(leaf) if is_array(leaf) else leaf
