"""Where a 0 that broke something came from: a number that was too small for its dtype."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.equations import inner_jaxpr, is_variable
from gradstable._src.walk.shards import aligned

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr, JaxprEqn

# What gives 0 of numbers other than 0 only if the result is too small.
_SHRINK = frozenset(
    {"convert_element_type", "exp", "exp2", "integer_pow", "logistic", "mul", "square"}
)
# What has a 0 in its output if its input has one, most likely the same.
_PASS = frozenset(
    {
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "div",
        "gather",
        "mul",
        "pvary",
        "reduce_sum",
        "reshape",
        "slice",
        "squeeze",
        "sqrt",
        "transpose",
    }
)
# Which input of an operation must not be 0.
_READS = {"div": 1, "integer_pow": 0, "log": 0, "pow": 0, "rsqrt": 0}


def underflows(eqn: JaxprEqn, inputs: Sequence[Any], output: Any) -> bool:
    """Whether an equation made a 0 of finite numbers that are none."""
    if eqn.primitive.name not in _SHRINK or not _is_float(output):
        return False
    on_host = jax.default_backend() == "cpu"
    of: Any = np if on_host else jnp
    zero = (np.asarray(output) if on_host else output) == 0
    if not zero.any():
        return False
    for x in inputs:
        given = aligned(np.asarray(x) if on_host else jnp.asarray(x), output)
        zero = zero & (given != 0) & (of.isfinite(given) if _is_float(x) else True)
    return bool(zero.any())


def source_of_zero(jaxpr: Jaxpr, eqn: JaxprEqn, flagged: Set[int]) -> JaxprEqn | None:
    """Return the equation, of those flagged by identity, whose 0 another one got.

    It is looked for in the program of the other, and in what that calls.
    """
    which = _READS.get(eqn.primitive.name)
    if which is None or not flagged:
        return None
    made: dict[int, dict[Any, JaxprEqn]] = {}
    waiting: list[tuple[Jaxpr, Any]] = [(jaxpr, eqn.invars[which])]
    while waiting:
        program, atom = waiting.pop(0)
        if id(program) not in made:
            made[id(program)] = {var: one for one in program.eqns for var in one.outvars}
        before = made[id(program)].get(atom) if is_variable(atom) else None
        if before is None:
            continue
        if id(before) in flagged:
            return before
        inner = inner_jaxpr(before)
        if inner is not None:
            waiting.append((inner, inner.outvars[before.outvars.index(atom)]))
        elif before.primitive.name in _PASS:
            count = 1 if before.primitive.name == "div" else None
            waiting += [(program, one) for one in before.invars[:count]]
    return None


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(array), jnp.floating)
