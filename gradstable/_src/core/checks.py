"""Argument checks: what is wrong, where it is, and what to do about it.

Numbers are checked at construction, and only concrete ones: under ``jit`` or
``optax.inject_hyperparams`` a hyper-parameter may be a traced array, whose value nobody
knows yet. Trees are checked at trace time, which costs nothing at run time.
"""

import contextlib
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from gradstable._src.core.equations import as_arrays, with_gradient

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

    Infinity is refused, unless ``finite`` is false: a limit that is infinite never acts.

    Raises:
      TypeError: if the value is no real number.
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
    # Infinity lies within a range that is open above.
    endless = number == math.inf and min(below, at_most) == math.inf
    wanted = " ".join(["a finite number" if endless else "a number", " and ".join(bounds)]).strip()
    msg = f"{name} must be {wanted}, got {_digits(number)}" + (f". {hint}" if hint else "")
    raise ValueError(msg)


def _digits(number: float) -> str:
    # Not rounded to the bound that it misses.
    short = f"{number:g}"
    return short if float(short) == number or math.isnan(number) else repr(number)


def is_negative(value: object) -> bool:
    """Whether a hyper-parameter is known to be a number below zero."""
    number = isinstance(value, (int, float, np.number, np.ndarray, jax.Array))
    if isinstance(value, jax.core.Tracer) or not number:
        return False
    return np.ndim(value) == 0 and np.isrealobj(value) and float(cast("float", value)) < 0


def check_size(name: str, value: object, *, at_least: int) -> None:
    """Raise unless a value that has to be known at trace time is an integer in range.

    Raises:
      TypeError: if it is no Python integer.
      ValueError: if it is out of range.
    """
    check_number(name, value, at_least=at_least)
    if not isinstance(value, (int, np.integer)):
        msg = f"{name} must be a Python integer, got {value!r} of type {type(value).__name__}"
        raise TypeError(msg)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a value is one of some names."""
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
    sign = "A transform that descends negates by itself; pass the rate as a positive number."
    hint = sign if is_negative(value) else ""
    kind = "a real number, or a schedule from steps to numbers"
    check_number(name, value, at_least=0.0, below=math.inf, hint=hint, kind=kind)


def check_transform(name: str, value: object) -> optax.GradientTransformationExtraArgs:
    """Return an optax transform that takes extra arguments, or raises ``TypeError``.

    Whatever has ``init`` and ``update`` is one, as for ``optax.chain``: ``optax.MultiSteps`` is.
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
        hint = ". It is a rule: rules stand behind the optimizer, as in gs.guard(optimizer, rule)"
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


def check_updates(updates: Any, params: Any = None) -> tuple[Any, Any]:
    """Check at trace time that gradients are floating-point and match the parameters.

    Returns:
      Both with numbers of Python and NumPy as arrays, and ``None`` for parameters without gradient.

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
            hint += ", and not with the (value, gradients) of jax.value_and_grad"
        check_same_tree("updates", leaves, "params", leaves_by_path(params), hint=hint)
    return as_arrays(updates), None if params is None else with_gradient(params, updates)


def no_gradient(path: str, dtype: DTypeLike) -> TypeError:
    """Return what to raise for a gradient that is no floating-point array."""
    return TypeError(
        f"updates{path} has dtype {dtype}, but gradients must be floating-point. Differentiate "
        "only floating-point parameters, or keep the others out with optax.masked"
    )


def _dtype_of(name: str, leaf: Any) -> np.dtype[Any]:
    # To NumPy a string may be the name of a dtype.
    if not isinstance(leaf, str):
        with contextlib.suppress(TypeError):
            return jnp.result_type(leaf)
    msg = f"{name} must be an array, got {leaf!r} of type {type(leaf).__name__}"
    raise TypeError(msg)


def check_params(params: Params | None, factory: str) -> Params:
    """Return the parameters, or raise ``ValueError`` where they are needed and were not given."""
    if params is None:
        msg = f"{factory} compares with params, and needs them: call update(updates, state, params)"
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
    """Raise ``TypeError`` unless every leaf is real and floating-point; tells name and path."""
    for path, leaf in leaves_by_path(tree).items():
        if leaf is not None and not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            msg = (
                f"{name}{path} must be real floating-point, got {jnp.result_type(leaf)}: cast it, "
                "or keep it out by a closure"
            )
            raise TypeError(msg)


def check_name(name: str, value: object) -> None:
    """Raise ``TypeError`` unless an argument is a name: a string that is not empty."""
    if not isinstance(value, str) or not value:
        msg = f"{name} must be a name such as 'query', got {value!r} ({type(value).__name__})"
        raise TypeError(msg)


def check_axis(axis: object, ndim: int) -> int:
    """Return an axis counted from the front, or raise if it is no axis of such an array."""
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


def check_value(value: object, factory: str, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Return the loss that was passed to ``update`` as a scalar, float32 unless told otherwise.

    Raises:
      ValueError: if it is missing or no scalar; the message tells how to pass it.
    """
    remedy = "call update(updates, state, params, value=loss)"
    if value is None:
        msg = f"{factory} judges the loss, and value is missing: {remedy}"
        raise ValueError(msg)
    if isinstance(value, (str, tuple, list, dict)):
        aux = ", without what has_aux=True brings with it" if isinstance(value, tuple) else ""
        msg = (
            f"{factory} judges the loss, and value must be a number, got {value!r} of type "
            f"{type(value).__name__}: {remedy}{aux}"
        )
        raise TypeError(msg)
    loss = jnp.asarray(cast("Any", value), dtype)
    if loss.ndim:
        msg = (
            f"{factory} judges the loss, and value must be a scalar, got one of shape "
            f"{loss.shape}: take its mean, and {remedy}"
        )
        raise ValueError(msg)
    return loss


def check_weight(value: object, factory: str) -> jax.Array:
    """Return the weight that was passed to ``update`` as a float32 scalar.

    Raises:
      TypeError: if it is no number.
      ValueError: if it is no scalar.
    """
    remedy = "call update(updates, state, params, weight=number_of_tokens)"
    if isinstance(value, (str, tuple, list, dict)):
        msg = f"weight must be a number to {factory}, got {value!r}: {remedy}"
        raise TypeError(msg)
    weight = jnp.asarray(cast("Any", value), jnp.float32)
    if weight.ndim:
        msg = f"weight must be a scalar to {factory}, got one of shape {weight.shape}: {remedy}"
        raise ValueError(msg)
    return weight


def check_same_tree(
    name: str, leaves: dict[str, Any], other: str, others: dict[str, Any], *, hint: str = ""
) -> None:
    """Raise ``ValueError`` with the first path at which two trees differ; ``None`` fits all."""
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
    """Return a state that came from the ``init`` of this transform, or raises ``TypeError``."""
    if not isinstance(state, expected):
        msg = (
            f"the state passed to {factory}(...).update must come from {factory}(...).init "
            f"({expected.__name__}), got {type(state).__name__}. Call update(updates, "
            "state, params) in this order; to restore one from a checkpoint, pass the result of "
            "init as the target"
        )
        raise TypeError(msg)
    return state


def leaves_by_path(tree: object) -> dict[str, Any]:
    """Return the leaves of a tree by their path, in tree order; ``None`` is a leaf here."""
    is_none: Callable[[object], bool] = lambda leaf: leaf is None  # noqa: E731
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}
