"""Checks of trees and related arguments at trace time, with the path of the leaf in messages.

They cost nothing at run time.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstable._src.core.equations import as_arrays, with_gradient

State = TypeVar("State")
Params = TypeVar("Params")


def check_updates(updates: Any, params: Any = None) -> tuple[Any, Any]:
    """Check at trace time that gradients are floating-point and match the parameters.

    Returns:
      Both with Python and NumPy numbers as arrays, and ``None`` for parameters without a gradient.

    Raises:
      TypeError: if a leaf is not floating-point (or complex), with its path.
      ValueError: if structure or shapes differ from those of ``params``, with the path.
    """
    leaves = leaves_by_path(updates)
    for path, leaf in leaves.items():
        dtype = None if leaf is None else _dtype_of(f"updates{path}", leaf)
        if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
            raise no_gradient(path, dtype)
    if params is not None:
        hint = "Call update(updates, state, params) with the gradients of params"
        if isinstance(updates, tuple) and not isinstance(params, tuple):
            hint += ", not with the (value, gradients) of jax.value_and_grad"
        check_same_tree("updates", leaves, "params", leaves_by_path(params), hint=hint)
    return as_arrays(updates), None if params is None else with_gradient(params, updates)


def no_gradient(path: str, dtype: DTypeLike) -> TypeError:
    """Return the error to raise for a gradient that is not a floating-point array."""
    return TypeError(
        f"updates{path} has dtype {dtype}, but gradients must be floating-point. Differentiate "
        "only floating-point parameters, or keep the others out with optax.masked"
    )


def _dtype_of(name: str, leaf: Any) -> np.dtype[Any]:
    # NumPy would take a string for the name of a dtype.
    if not isinstance(leaf, str):
        with contextlib.suppress(TypeError):
            return jnp.result_type(leaf)
    msg = f"{name} must be an array, got {leaf!r} of type {type(leaf).__name__}"
    raise TypeError(msg)


def check_params(params: Params | None, factory: str) -> Params:
    """Return the parameters, or raise ``ValueError`` if they are needed and were not passed."""
    if params is None:
        msg = f"{factory} compares with params and needs them: call update(updates, state, params)"
        raise ValueError(msg)
    return params


def check_real(updates: object, factory: str) -> None:
    """Raise ``TypeError`` for a complex gradient, with its path."""
    for path, leaf in leaves_by_path(updates).items():
        if leaf is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            msg = (
                f"updates{path} has dtype {jnp.result_type(leaf)}, but {factory} is defined for "
                "real gradients only. Wrap it in optax.contrib.split_real_and_imaginary"
            )
            raise TypeError(msg)


def check_floating(name: str, tree: object) -> None:
    """Raise ``TypeError``, with name and path, unless every leaf is real and floating-point."""
    for path, leaf in leaves_by_path(tree).items():
        if leaf is not None and not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            msg = (
                f"{name}{path} must be real floating-point, got {jnp.result_type(leaf)}: cast it, "
                "or keep it out by using a closure"
            )
            raise TypeError(msg)


def check_value(value: object, factory: str, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Return the loss that was passed to ``update`` as a scalar, float32 by default.

    Raises:
      TypeError: if it is not a number.
      ValueError: if it is missing or not a scalar; the message says how to pass it.
    """
    remedy = "call update(updates, state, params, value=loss)"
    if value is None:
        msg = (
            f"{factory} judges the loss, but value is missing: {remedy}. If a framework makes "
            "that call and passes no loss, use what needs none"
        )
        raise ValueError(msg)
    if isinstance(value, (str, tuple, list, dict)):
        aux = ", without the extra output of has_aux=True" if isinstance(value, tuple) else ""
        msg = (
            f"{factory} judges the loss, so value must be a number, got {value!r} of type "
            f"{type(value).__name__}: {remedy}{aux}"
        )
        raise TypeError(msg)
    loss = jnp.asarray(cast("Any", value), dtype)
    if loss.ndim:
        msg = (
            f"{factory} judges the loss, so value must be a scalar, got shape {loss.shape}: take "
            f"its mean, and {remedy}"
        )
        raise ValueError(msg)
    return loss


def check_weight(value: object, factory: str) -> jax.Array:
    """Return the weight that was passed to ``update`` as a float32 scalar.

    Raises:
      TypeError: if it is not a number.
      ValueError: if it is not a scalar.
    """
    remedy = "call update(updates, state, params, weight=number_of_tokens)"
    if isinstance(value, (str, tuple, list, dict)):
        msg = f"weight must be a number for {factory}, got {value!r}: {remedy}"
        raise TypeError(msg)
    weight = jnp.asarray(cast("Any", value), jnp.float32)
    if weight.ndim:
        msg = f"weight must be a scalar for {factory}, got shape {weight.shape}: {remedy}"
        raise ValueError(msg)
    return weight


def check_same_tree(
    name: str, leaves: dict[str, Any], other: str, others: dict[str, Any], *, hint: str = ""
) -> None:
    """Raise ``ValueError`` with the first path where two trees differ; ``None`` fits any leaf."""
    same = "both trees must be the same" + (f". {hint}" if hint else "")
    for path in [path for path in leaves if path not in others]:
        what = f"{name}{path}" if path else f"{name}, which is {type(leaves[path]).__name__},"
        msg = f"{what} has no counterpart in {other}: {same}"
        raise ValueError(msg)
    for path in [path for path in others if path not in leaves]:
        msg = f"{other}{path} has no counterpart in {name}: {same}"
        raise ValueError(msg)
    for path, leaf in leaves.items():
        if leaf is not None and np.shape(leaf) != np.shape(others[path]):
            msg = (
                f"{name}{path} has shape {np.shape(leaf)}, but {other}{path} has shape "
                f"{np.shape(others[path])}: {same}"
            )
            raise ValueError(msg)


def check_state(state: object, expected: type[State], factory: str) -> State:
    """Return a state that came from the ``init`` of this transform, or raise ``TypeError``."""
    if not isinstance(state, expected):
        msg = (
            f"the state passed to {factory}(...).update must come from {factory}(...).init "
            f"({expected.__name__}), got {type(state).__name__}. Call update(updates, "
            "state, params) in this order; to restore a state from a checkpoint, pass the result "
            "of init as the target"
        )
        raise TypeError(msg)
    return state


def leaves_by_path(tree: object) -> dict[str, Any]:
    """Return the leaves of a tree by their path, in tree order; ``None`` is a leaf here."""
    is_none: Callable[[object], bool] = lambda leaf: leaf is None  # noqa: E731
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def first_deleted(tree: Any) -> str | None:
    """Return the path of the first array whose memory was donated; ``None`` if there is none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            return jax.tree_util.keystr(path).removesuffix(".value")
    return None
