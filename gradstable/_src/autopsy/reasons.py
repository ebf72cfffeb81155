"""Why an operation on finite numbers does not give one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn


def reason(eqn: JaxprEqn, inputs: Sequence[Any], output: Any) -> str:
    """Return why the output of an equation is not finite; empty if that is not known."""
    dtype = jnp.result_type(output)
    given = [np.asarray(x) for x in inputs]
    if not jnp.issubdtype(dtype, jnp.inexact) or any(x.dtype.kind not in "fiubV" for x in given):
        return ""
    numbers = [x.astype(np.float64) for x in given]
    broken = ~np.isfinite(np.asarray(output).astype(np.float64))
    name = eqn.primitive.name
    if name in _OUTSIDE:
        for is_cause, what in _OUTSIDE[name]:
            if (where := is_cause(*numbers, eqn.params) & broken).any():
                return f"{what}{_times(where)}"
    elif name in _WHOLE:
        return _WHOLE[name]
    infinite = np.isinf(np.asarray(output).astype(np.float64)).any()
    if infinite and all(np.isfinite(x).all() for x in numbers):
        return f"overflow: the largest {dtype} is {float(jnp.finfo(dtype).max):.6g}"
    if not infinite and any(np.isinf(x).any() for x in numbers):
        return "infinities that cancel, or one times 0"
    return ""


def _times(where: np.ndarray) -> str:
    return f" ({where.sum():,} times)" if where.sum() > 1 else ""


def _power(x: Any, y: Any, params: Any) -> Any:
    del params
    return (x == 0) & (y < 0)


def _root_of_negative(x: Any, params: Any) -> Any:
    del params
    return x < 0


def _at(number: float) -> Callable[..., Any]:
    return lambda x, params: x == number


def _beyond(low: float, high: float) -> Callable[..., Any]:
    return lambda x, params: (x < low) | (x > high)


# For each primitive: where it has no finite value, and what to call that.
_OUTSIDE: dict[str, tuple[tuple[Callable[..., Any], str], ...]] = {
    "div": (
        (lambda x, y, params: (x == 0) & (y == 0), "0 divided by 0"),
        (lambda x, y, params: (x != 0) & (y == 0), "division by 0"),
    ),
    "log": ((_at(0.0), "logarithm of 0"), (_root_of_negative, "logarithm of a negative number")),
    "log1p": ((_at(-1.0), "log1p of -1"), (_beyond(-1.0, np.inf), "log1p of less than -1")),
    "sqrt": ((_root_of_negative, "square root of a negative number"),),
    "rsqrt": (
        (_at(0.0), "one over the root of 0"),
        (_root_of_negative, "square root of a negative number"),
    ),
    "pow": (
        (_power, "0 to a negative power"),
        (lambda x, y, params: (x < 0) & (y != np.round(y)), "a negative number to a fraction"),
    ),
    "integer_pow": ((lambda x, params: (x == 0) & (params["y"] < 0), "0 to a negative power"),),
    "acos": ((_beyond(-1.0, 1.0), "arccos of a number outside of [-1, 1]"),),
    "asin": ((_beyond(-1.0, 1.0), "arcsin of a number outside of [-1, 1]"),),
    "acosh": ((_beyond(1.0, np.inf), "arccosh of less than 1"),),
    "atanh": (
        (lambda x, params: np.abs(x) == 1.0, "arctanh of 1 or -1"),
        (_beyond(-1.0, 1.0), "arctanh of a number outside of [-1, 1]"),
    ),
}
# For operations on matrices as a whole.
_WHOLE = {
    "cholesky": "the matrix is not positive definite",
    "triangular_solve": "the matrix is singular, or nearly so",
}
