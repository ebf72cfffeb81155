"""Argument checks: what is wrong, where it is, and what to do about it.

Numbers are checked at construction, and only concrete ones: under ``jit`` or
``optax.inject_hyperparams`` a hyper-parameter can be a traced array, whose value is not
known yet. Trees are checked when they are passed, in ``tree_checks``.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

State = TypeVar("State")
Params = TypeVar("Params")


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
    finite: bool = True,
    hint: str = "",
    kind: str = "a real number",
) -> None:
    """Raise unless a concrete number lies in the given range; traced values pass.

    Infinity is rejected, unless ``finite`` is false: an infinite limit never acts.

    Raises:
      TypeError: if the value is not a real number.
      ValueError: if it is NaN or out of range; the message names argument, value and range.
    """
    if isinstance(value, jax.core.Tracer):
        return
    is_scalar = isinstance(value, (int, float, np.number, np.ndarray, jax.Array))
    if not is_scalar or isinstance(value, bool) or np.ndim(value) or np.iscomplexobj(value):
        remedy = ". Convert it with float(...)" if isinstance(value, str) else ""
        msg = f"{name} must be {kind}, got {value!r} of type {type(value).__name__}{remedy}"
        raise TypeError(msg)
    number = float(value)
    inside = number < below or (not finite and number == below)
    if inside and number > above and number >= at_least and number <= at_most:
        return
    bounds = [
        f"{symbol} {bound:g}"
        for symbol, bound in ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
        if math.isfinite(bound)
    ]
    # Infinity lies within a range without an upper bound.
    endless = number == math.inf and min(below, at_most) == math.inf
    wanted = " ".join(["a finite number" if endless else "a number", " and ".join(bounds)]).strip()
    msg = f"{name} must be {wanted}, got {_digits(number)}" + (f". {hint}" if hint else "")
    raise ValueError(msg)


def _digits(number: float) -> str:
    # Not rounded to the very bound that it violates.
    short = f"{number:g}"
    return short if float(short) == number or math.isnan(number) else repr(number)


def is_negative(value: object) -> bool:
    """Whether a hyper-parameter is known to be a number below zero."""
    number = isinstance(value, (int, float, np.number, np.ndarray, jax.Array))
    if isinstance(value, jax.core.Tracer) or not number:
        return False
    return np.ndim(value) == 0 and np.isrealobj(value) and float(cast("float", value)) < 0


def check_size(name: str, value: object, *, at_least: int) -> None:
    """Raise unless a value that must be known at trace time is an integer in range.

    Raises:
      TypeError: if it is not a Python integer.
      ValueError: if it is out of range.
    """
    check_number(name, value, at_least=at_least)
    if not isinstance(value, (int, np.integer)):
        msg = f"{name} must be a Python integer, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a value is one of the given names."""
    if value not in choices:
        msg = f"{name} must be one of {choices}, got {value!r}"
        raise ValueError(msg)


def check_key(name: str, value: object) -> None:
    """Raise unless a value is a seed or one key of ``jax.random``; traced values pass.

    Raises:
      TypeError: if it is neither.
      ValueError: if it is a negative seed.
    """
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, jax.Array):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and not value.ndim
        if typed or (value.dtype == jnp.uint32 and value.ndim == 1):
            return
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        msg = f"{name} must be a seed or a key such as jax.random.key(0), got {value!r}"
        raise TypeError(msg)
    check_number(name, value, at_least=0)


def check_order(low_name: str, low: object, high_name: str, high: object) -> None:
    """Raise ``ValueError`` if two concrete numbers are in the wrong order."""
    if isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer):
        return
    if float(cast("float", low)) > float(cast("float", high)):
        msg = f"{low_name} must be <= {high_name}, got {low_name}={low}, {high_name}={high}"
        raise ValueError(msg)


def check_rate(name: str, value: object) -> None:
    """Check a learning rate: a schedule (any callable), or a number >= 0."""
    if callable(value):
        return
    sign = "Optimizers negate the updates themselves; pass the rate as a positive number."
    hint = sign if is_negative(value) else ""
    kind = "a real number, or a schedule from steps to numbers"
    check_number(name, value, at_least=0.0, below=math.inf, hint=hint, kind=kind)


def check_transform(name: str, value: object) -> optax.GradientTransformationExtraArgs:
    """Return an optax transform that takes extra arguments, or raise ``TypeError``.

    As for ``optax.chain``, anything with ``init`` and ``update`` is one, such as
    ``optax.MultiSteps``.
    """
    if isinstance(value, optax.GradientTransformation):
        return optax.with_extra_args_support(value)
    init, update = getattr(value, "init", None), getattr(value, "update", None)
    if callable(init) and callable(update) and not isinstance(value, type):
        given: Any = (init, update)
        takes_all = _takes_any_keyword(update)
        kind = optax.GradientTransformationExtraArgs if takes_all else optax.GradientTransformation
        return optax.with_extra_args_support(kind(*given))
    hint = ""
    if callable(value):
        called = getattr(value, "__name__", "it")
        hint = (
            f". It is a function: call it first, as in {called}(...), or if it maps (updates, "
            "params) to updates, wrap it in optax.stateless"
        )
    elif hasattr(value, "decide"):
        hint = ". It is a rule: rules come after the optimizer, as in gs.guard(optimizer, rule)"
    msg = (
        f"{name} must be an optax.GradientTransformation such as optax.adamw(3e-4), "
        f"got {value!r} of type {type(value).__name__}{hint}"
    )
    raise TypeError(msg)


def _takes_any_keyword(function: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def check_dtype(name: str, value: object) -> None:
    """Raise ``TypeError`` unless a value names a floating-point (or complex) dtype."""
    try:
        fits = jnp.issubdtype(cast("Any", value), jnp.inexact)
    except TypeError:
        fits = False
    if not fits:
        msg = f"{name} must be a floating-point dtype such as jnp.bfloat16, got {value!r}"
        raise TypeError(msg)


def check_name(name: str, value: object) -> None:
    """Raise ``TypeError`` unless an argument is a name: a string that is not empty."""
    if not isinstance(value, str) or not value:
        msg = f"{name} must be a name such as 'query', got {value!r} ({type(value).__name__})"
        raise TypeError(msg)


def check_axis(axis: object, ndim: int) -> int:
    """Return an axis counted from the front, or raise if such an array does not have it."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        msg = f"axis must be an integer, got {axis!r} of type {type(axis).__name__}"
        raise TypeError(msg)
    if not -ndim <= axis < ndim:
        msg = f"axis must be in [{-ndim}, {ndim}) for an array of {ndim} dimensions, got {axis}"
        raise ValueError(msg)
    return axis % ndim


def check_axes(axis: object, ndim: int) -> tuple[int, ...]:
    """Return axes counted from the front: one, a tuple of them, or all for ``None``."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(check_axis(one, ndim) for one in (axis if isinstance(axis, tuple) else (axis,)))
    if not axes or len(set(axes)) < len(axes):
        msg = f"axis must name at least one axis, and each only once, got {axis!r}"
        raise ValueError(msg)
    return axes
