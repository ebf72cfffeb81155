"""Argument checks: what is wrong, where it is, and what to do about it.

Numbers are checked at construction, and only concrete ones: under ``jit`` or
``optax.inject_hyperparams`` a hyper-parameter may be a traced array, whose value nobody
knows yet. Trees are checked at trace time, which costs nothing at run time.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

State = TypeVar("State")


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
    hint: str = "",
) -> None:
    """Raise unless a concrete number lies in the given range; traced values pass.

    Raises:
      TypeError: if the value is no real number.
      ValueError: if it is NaN or out of range; the message names argument, value and range.
    """
    if isinstance(value, jax.core.Tracer):
        return
    is_scalar = isinstance(value, (int, float, np.number, np.ndarray, jax.Array))
    if not is_scalar or isinstance(value, bool) or np.ndim(value) or np.iscomplexobj(value):
        msg = f"{name} must be a real number, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)
    number = float(value)
    if number > above and number >= at_least and number < below and number <= at_most:
        return
    bounds = [
        f"{symbol} {bound:g}"
        for symbol, bound in ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
        if math.isfinite(bound)
    ]
    wanted = "a number " + " and ".join(bounds) if bounds else "a number"
    msg = f"{name} must be {wanted}, got {number:g}" + (f". {hint}" if hint else "")
    raise ValueError(msg)


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
    hint = "A transform that descends negates by itself; pass the rate as a positive number."
    check_number(name, value, at_least=0.0, below=math.inf, hint=hint)


def check_transform(name: str, value: object) -> optax.GradientTransformationExtraArgs:
    """Return an optax transform that takes extra arguments, or raises ``TypeError``."""
    if isinstance(value, optax.GradientTransformation):
        return optax.with_extra_args_support(value)
    hint = ""
    if callable(value):
        called = getattr(value, "__name__", "it")
        hint = f". It is a function: call it first, as in {called}(...)"
    msg = (
        f"{name} must be an optax.GradientTransformation such as optax.adamw(3e-4), "
        f"got {value!r} of type {type(value).__name__}{hint}"
    )
    raise TypeError(msg)


def check_updates(updates: object, params: object | None = None) -> None:
    """Check at trace time that gradients are floating-point and match the parameters.

    Raises:
      TypeError: if a leaf is not floating-point (or complex), with its path.
      ValueError: if structure or shapes differ from those of ``params``, with the path.
    """
    leaves = leaves_by_path(updates)
    for path, leaf in leaves.items():
        if leaf is not None and not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            msg = (
                f"updates{path} has dtype {jnp.result_type(leaf)}, but "
                "gradients must be floating-point. Differentiate only floating-point "
                "parameters, or keep the others out with optax.masked"
            )
            raise TypeError(msg)
    if params is not None:
        check_same_tree("updates", leaves, "params", leaves_by_path(params))


def check_real(updates: object, factory: str) -> None:
    """Raise ``TypeError`` for a complex gradient, with its path."""
    for path, leaf in leaves_by_path(updates).items():
        if leaf is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            msg = (
                f"updates{path} has dtype {jnp.result_type(leaf)}, but {factory} is defined for "
                "real gradients only. Wrap it in optax.contrib.split_real_and_imaginary"
            )
            raise TypeError(msg)


def check_same_tree(name: str, leaves: dict[str, Any], other: str, others: dict[str, Any]) -> None:
    """Raise ``ValueError`` with the first path at which two trees differ; ``None`` fits all."""
    for path in leaves.keys() - others.keys():
        msg = f"{name}{path} has no counterpart in {other}: both trees must be the same"
        raise ValueError(msg)
    for path in others.keys() - leaves.keys():
        msg = f"{other}{path} has no counterpart in {name}: both trees must be the same"
        raise ValueError(msg)
    for path, leaf in leaves.items():
        if leaf is not None and np.shape(leaf) != np.shape(others[path]):
            msg = (
                f"{name}{path} has shape {np.shape(leaf)}, but {other}{path} has shape "
                f"{np.shape(others[path])}: both trees must be the same"
            )
            raise ValueError(msg)


def check_state(state: object, expected: type[State], factory: str) -> State:
    """Return a state that came from the ``init`` of this transform, or raises ``TypeError``."""
    if not isinstance(state, expected):
        msg = (
            f"the state passed to {factory}(...).update must come from {factory}(...).init "
            f"({expected.__name__}), got {type(state).__name__}. To restore one from a "
            "checkpoint, pass the result of init as the target"
        )
        raise TypeError(msg)
    return state


def leaves_by_path(tree: object) -> dict[str, Any]:
    """Return the leaves of a tree by their path, in tree order; ``None`` is a leaf here."""
    is_none: Callable[[object], bool] = lambda leaf: leaf is None  # noqa: E731
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}
