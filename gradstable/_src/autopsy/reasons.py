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
    if name == "integer_pow":
        numbers.append(np.asarray(eqn.params["y"], np.float64))
    if name in _OUTSIDE:
        for is_cause, what in _OUTSIDE[name]:
            if (where := is_cause(*numbers) & broken).any():
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


def _is(number: float) -> Callable[..., Any]:
    return lambda x: x == number


def _outside(low: float, high: float = np.inf) -> Callable[..., Any]:
    return lambda x: (x < low) | (x > high)


_NEGATIVE_POWER = (lambda x, y: (x == 0) & (y < 0), "0 to a negative power")
_NEGATIVE_ROOT = (_outside(0.0), "square root of a negative number")

# For each primitive: where it has no finite value, and what to call that.
_OUTSIDE: dict[str, tuple[tuple[Callable[..., Any], str], ...]] = {
    "div": (
        (lambda x, y: (x == 0) & (y == 0), "0 divided by 0"),
        (lambda x, y: (x != 0) & (y == 0), "division by 0"),
    ),
    "log": ((_is(0.0), "logarithm of 0"), (_outside(0.0), "logarithm of a negative number")),
    "log1p": ((_is(-1.0), "log1p of -1"), (_outside(-1.0), "log1p of less than -1")),
    "sqrt": (_NEGATIVE_ROOT,),
    "rsqrt": ((_is(0.0), "one over the root of 0"), _NEGATIVE_ROOT),
    "pow": (
        _NEGATIVE_POWER,
        (lambda x, y: (x < 0) & (y != np.round(y)), "a negative number to a fraction"),
    ),
    "integer_pow": (_NEGATIVE_POWER,),
    "acos": ((_outside(-1.0, 1.0), "arccos of a number outside of [-1, 1]"),),
    "asin": ((_outside(-1.0, 1.0), "arcsin of a number outside of [-1, 1]"),),
    "acosh": ((_outside(1.0), "arccosh of less than 1"),),
    "atanh": (
        (lambda x: np.abs(x) == 1.0, "arctanh of 1 or -1"),
        (_outside(-1.0, 1.0), "arctanh of a number outside of [-1, 1]"),
    ),
}
# For operations on matrices as a whole.
_WHOLE = {
    "cholesky": "the matrix is not positive definite",
    "triangular_solve": "the matrix is singular, or nearly so",
}
