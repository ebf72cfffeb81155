"""An update as equations: trace it once, see what it reads, evaluate it with other values.

A leaf that is not an array (an activation function, a string, a ``float0`` gradient) never becomes
an input of the equations: it bypasses them, as it does under ``equinox.filter_jit``.

``jax.extend`` is imported only when something is traced: it loads Pallas, which takes as long as
the rest of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Update = Callable[[Any, Any, Any], tuple[Any, Any]]

# Equations that wrap a single jaxpr, with the same inputs and outputs.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "shard_map": "jaxpr",
}


class Equations(NamedTuple):
    """The result of ``trace``.

    Attributes:
      closed: the equations, from the arrays among the arguments to those among the results.
      args: the arrays among the arguments.
      num_updates: how many of the results' leaves are updates, including non-arrays.
      results: structure of what the update returns.
      shapes: shape and dtype of each leaf of the results, or the leaf itself if it is not an array.
    """

    closed: ClosedJaxpr
    args: tuple[Any, ...]
    num_updates: int
    results: Any  # PyTreeDef
    shapes: tuple[Any, ...]

    @property
    def outputs(self) -> list[Var | Literal | None]:
        """Where each leaf of the results comes from; ``None`` for a non-array."""
        atoms = iter(self.closed.jaxpr.outvars)
        return [next(atoms) if _is_shape(leaf) else None for leaf in self.shapes]

    @property
    def sources(self) -> dict[Var, Var]:
        """For each variable that an equation only passes on: the variable, also defined by one."""
        found: dict[Var, Var] = {}
        defined: set[Var] = set()
        for eqn in self.closed.jaxpr.eqns:
            defined |= {*eqn.outvars}
            inner = inner_jaxpr(eqn)
            if inner is None:
                continue
            given = dict(zip(inner.invars, eqn.invars, strict=True))
            for made, atom in zip(eqn.outvars, inner.outvars, strict=True):
                source = given.get(atom) if is_variable(atom) else None
                if is_variable(source) and source in defined:
                    found[made] = found.get(source, source)
        return found

    def read(self, leaves: Sequence[Any]) -> list[bool]:
        """Return whether any result depends on each of the first arguments, the gradients.

        The answer is yes where it cannot be known, as inside a loop.
        """
        jaxpr = self.closed.jaxpr
        used = iter(_used(jaxpr, [True] * len(jaxpr.outvars)))
        return [is_input(leaf) and next(used) for leaf in leaves]

    def transformed(self, leaves: Sequence[Any]) -> list[bool]:
        """Return the same, but not counting gradients that are passed through unchanged."""
        jaxpr = self.closed.jaxpr
        inputs = {*jaxpr.invars}
        defined = [not is_variable(v) or v not in inputs for v in jaxpr.outvars]
        used = iter(_used(jaxpr, defined))
        return [is_input(leaf) and next(used) for leaf in leaves]

    def run(self, updates: object, state: object, params: object) -> Any:
        """Return the result of the update for arguments of the same types."""
        leaves = jax.tree.leaves((updates, state, params))
        arrays = [leaf for leaf in leaves if is_input(leaf)]
        values = evaluate(self.closed, self.closed.consts, arrays, lambda _, value: value)
        return self.results_of(values)

    def results_of(self, values: Iterable[Any]) -> Any:
        """Return the results of the update, with these values of the arrays among them."""
        each = iter(values)
        found = [next(each) if _is_shape(leaf) else leaf for leaf in self.shapes]
        return jax.tree.unflatten(self.results, found)


def trace(update: Update, updates: object, state: object, params: object) -> Equations:
    """Return the equations of ``update(updates, state, params) -> (updates, state)``."""
    leaves, structure = jax.tree.flatten((updates, state, params))
    found: list[Any] = []

    def run(*given: Any) -> list[Any]:
        arrays = iter(given)
        full = [next(arrays) if is_input(leaf) else leaf for leaf in leaves]
        results = update(*jax.tree.unflatten(structure, full))
        outs, out_structure = jax.tree.flatten(results)
        found[:] = len(jax.tree.leaves(results[0])), out_structure, [*map(_if_no_array, outs)]
        return [out for out in outs if is_array(out)]

    args = tuple(leaf for leaf in leaves if is_input(leaf))
    closed, shapes = jax.make_jaxpr(run, return_shape=True)(*args)
    num_updates, results, others = found
    each = iter(shapes)
    known = tuple(next(each) if other is _ARRAY else other for other in others)
    return Equations(closed, args, num_updates, results, known)


def evaluate(
    closed: ClosedJaxpr,
    consts: Sequence[Any],
    args: Iterable[Any],
    define: Callable[[Var, Any], Any],
) -> list[Any]:
    """Evaluate equations; ``define`` can replace the value that one of them gives a variable.

    Equations with jaxprs of their own (``jit``, ``cond``, ``custom_jvp``, ...) are bound as they
    are: a leaf defined inside is held after them, which is correct, if less economical. Each is
    bound with its original name scope and source line, so that a profile of the compiled program
    reads like that of the update itself.
    """
    from jax.extend import source_info_util

    jaxpr = closed.jaxpr
    env: dict[Var, Any] = dict(
        zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True)
    )

    def read(atom: Var | Literal) -> Any:
        return env[atom] if is_variable(atom) else cast("Literal", atom).val

    outer = source_info_util.current_name_stack()
    for eqn in jaxpr.eqns:
        bind_params = eqn.primitive.get_bind_params(eqn.params)
        source = eqn.source_info
        scope = source_info_util.user_context(
            source.traceback, name_stack=outer + source.name_stack
        )
        with scope, eqn.ctx.manager:
            result = eqn.primitive.bind(*map(read, eqn.invars), **bind_params)
        values = result if eqn.primitive.multiple_results else [result]
        for var, value in zip(eqn.outvars, values, strict=True):
            env[var] = define(var, value)
    return [read(atom) for atom in jaxpr.outvars]


def is_array(leaf: object) -> bool:
    """Whether a leaf is an array or a number; a ``float0`` gradient is neither."""
    if isinstance(leaf, (jax.Array, int, float, complex)):
        return True
    if not isinstance(leaf, (np.ndarray, np.generic)) and not hasattr(leaf, "__jax_array__"):
        return False
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and (
        jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)
    )


def is_input(leaf: object) -> bool:
    """Whether a leaf becomes an input of equations; a Python number stays as it is."""
    return is_array(leaf) and not isinstance(leaf, (int, float, complex, np.generic))


def as_arrays(tree: Any) -> Any:
    """Return a tree with its numbers as arrays, without weak types; other leaves are unchanged."""
    return jax.tree.map(lambda leaf: _as_array(leaf) if is_array(leaf) else leaf, tree)


def only_arrays(tree: Any) -> Any:
    """Return the same, with ``None`` in place of leaves that are not numbers."""
    return jax.tree.map(lambda leaf: _as_array(leaf) if is_array(leaf) else None, tree)


def with_gradient(params: Any, updates: Any) -> Any:
    """Return the parameters that have a gradient, as arrays, and ``None`` for the rest."""

    def keep(update: Any, param: Any) -> Any:
        return None if update is None else only_arrays(param)

    return jax.tree.map(keep, updates, params, is_leaf=lambda leaf: leaf is None)


def as_at_init(params: Any, updates: Any) -> Any:
    """Return the parameters as they were passed to ``init``: arrays, and numbers with a gradient.

    ``equinox.filter(model, equinox.is_array)`` leaves out numbers, which then are not parameters.
    """

    def keep(update: Any, param: Any) -> Any:
        if update is None:
            return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else None, param)
        return only_arrays(param)

    try:
        return jax.tree.map(keep, updates, params, is_leaf=lambda leaf: leaf is None)
    except ValueError:  # gradients that do not look like parameters
        return only_arrays(params)


def _as_array(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    return jnp.asarray(leaf, jnp.result_type(leaf))  # naming the dtype drops a weak type


class _Array:
    """A placeholder for a leaf that is an array, to be taken from the results of the equations."""


_ARRAY = _Array()


def _if_no_array(leaf: Any) -> Any:
    return _ARRAY if is_array(leaf) else leaf


def is_variable(atom: Var | Literal | None) -> TypeGuard[Var]:
    """Whether an equation or an argument defines this; a literal carries its own value."""
    return atom is not None and not hasattr(atom, "val")


def _is_shape(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _used(jaxpr: Jaxpr, outputs: Sequence[bool]) -> list[bool]:
    """Return on which inputs of a jaxpr the given outputs depend."""
    live = {
        atom
        for atom, used in zip(jaxpr.outvars, outputs, strict=True)
        if used and is_variable(atom)
    }
    for eqn in reversed(jaxpr.eqns):
        needed = [var in live for var in eqn.outvars]
        if any(needed):
            inputs = zip(eqn.invars, _inputs_used(eqn, needed), strict=True)
            live |= {atom for atom, used in inputs if used and is_variable(atom)}
    return [var in live for var in jaxpr.invars]


def _inputs_used(eqn: JaxprEqn, outputs: Sequence[bool]) -> list[bool]:
    everything = [True] * len(eqn.invars)
    if eqn.primitive.name == "cond":
        branches = [_used(branch.jaxpr, outputs) for branch in eqn.params["branches"]]
        return [True, *map(any, zip(*branches, strict=True))]
    inner = inner_jaxpr(eqn)
    return everything if inner is None else _used(inner, outputs)


def inner_jaxpr(eqn: JaxprEqn) -> Jaxpr | None:
    """Return the jaxpr that an equation wraps, if it has the same inputs and outputs."""
    called = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
    jaxpr = getattr(called, "jaxpr", called)
    return jaxpr if jaxpr is not None and len(jaxpr.invars) == len(eqn.invars) else None
