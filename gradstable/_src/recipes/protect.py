"""Every wrapper around an optimizer, in the one right order."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_size, check_transform
from gradstable._src.core.order import ORDER
from gradstable._src.core.shown import factories_in
from gradstable._src.guard import guard
from gradstable._src.precision.compress_moments import compress_moments
from gradstable._src.precision.kahan import kahan
from gradstable._src.precision.loss_scale import loss_scale
from gradstable._src.rate.govern import govern
from gradstable._src.recovery.accumulate import accumulate
from gradstable._src.recovery.backoff import backoff
from gradstable._src.recovery.rollback import rollback
from gradstable._src.rules.protocol import Rule, check_rules
from gradstable._src.telemetry.record import record

# A wrapper as usual, none, or one with these keyword arguments.
_Options: TypeAlias = bool | Mapping[str, Any]

_WRAPPERS: Mapping[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "record": record,
    "kahan": kahan,
    "loss_scale": loss_scale,
    "accumulate": accumulate,
    "backoff": backoff,
    "rollback": rollback,
    "govern": govern,
    "guard": guard,
    "compress_moments": compress_moments,
}


def protect(
    optimizer: optax.GradientTransformation,
    *,
    rules: Sequence[Rule] = (),
    record: bool | Mapping[str, Any] = True,
    govern: bool | Mapping[str, Any] = False,
    rollback: bool | Mapping[str, Any] = False,
    backoff: bool | Mapping[str, Any] = False,
    accumulate: int | Callable[[jax.Array], ArrayLike] | Mapping[str, Any] = 1,
    loss_scale: bool | Mapping[str, Any] = False,
    kahan: bool | Mapping[str, Any] = False,
    compress_moments: bool | Mapping[str, Any] = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Protect an optimizer for a whole run: all wrappers that you ask for, in the right order.

    Use it in place of nesting them yourself: most orders of wrappers are right, but some do harm,
    and are refused. It only calls them, so the result prints as the nesting that it is, and can be
    replaced by it. The order is, the outermost first,

    .. math:: record(kahan(loss\_scale(accumulate(backoff(rollback(govern(
              guard(compress\_moments(optimizer)))))))))

    and ``docs/using/protect.md`` says why, and when to use which. Without options you get the guard
    and the record, which cost one read of the gradients.

    Each option is ``False``, ``True`` for the defaults of that wrapper, or a dictionary of its
    keyword arguments, as in ``rollback={"every": 500}``.

    Args:
      optimizer: any optax optimizer. If it is one with a guard, such as ``gs.adamw(3e-4)``, it gets
        no second one.
      rules: the rules by which the guard decides, from ``gs.rules``. Default: ``log_mad()``.
      record: keep what happened in every step, for ``gs.telemetry.Log`` and ``gs.explain``. Default
        ``True``, since it costs next to nothing, and nobody knows beforehand when it is needed.
      govern: shorten steps that go too far. Use it where the learning rate may be too high, or
        there is no warm-up. Default ``False``, since it doubles the compile time of the guard.
      rollback: roll back to a copy when the loss has diverged. Default ``False``, since it stores
        two copies of parameters and state, and needs ``value=loss`` in every step.
      backoff: smaller steps for a while after many rejections in a row, or a rollback. Default
        ``False``, since in short runs it costs more than it gains.
      accumulate: micro-batches per step, >= 1, or a function that returns it from the number of
        steps made. Default 1.
      loss_scale: for gradients in float16; the loss then needs ``gs.scale_loss``. Default
        ``False``: bfloat16 and float32 need none.
      kahan: for parameters in bfloat16 or float16 without a copy in float32. Default ``False``.
      compress_moments: moments in 8 bits. Default ``False``, since it adds noise.
      axis_name: as for ``gs.guard``; every wrapper that measures gets it.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of the outermost wrapper, which
      ``gs.health``, ``gs.explain``, ``gs.check`` and all other readers take. ``update`` takes
      ``value=loss``, and needs ``params`` as soon as one of the wrappers or the optimizer does.

    Raises:
      TypeError: if ``optimizer`` is not a transform, a rule is not a ``Rule``, an option is none of
        the above, or a wrapper does not know a keyword argument.
      ValueError: if a number is out of range, there are rules for an optimizer that has a guard
        already, or wrappers around ``optimizer`` are in a wrong order.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> gs.protect(gs.adamw(3e-4), rollback={"every": 500})
      telemetry.record(recovery.rollback(recipes.adamw(0.0003), every=500))
      >>> tx = gs.protect(optax.adamw(3e-4), accumulate=4)
      >>> params = {"w": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> for micro_batch in range(8):
      ...     gradient = {"w": jnp.full(3, jnp.nan if micro_batch == 2 else 1.0)}
      ...     updates, state = tx.update(gradient, state, params)
      >>> int(gs.health(state).accepted)
      2

    Source:
      Ours. The order is measured: ``tests/recipes/test_order.py`` tries all of them.
    """
    check_transform("optimizer", optimizer)
    check_rules(rules)
    check_axis_name(axis_name)
    if isinstance(accumulate, Mapping):
        every = accumulate
    else:
        if not callable(accumulate):
            check_size("accumulate", accumulate, at_least=1)
        every = {"every": accumulate} if accumulate != 1 else False
    guarded = "guard" in factories_in(optimizer)
    if guarded and rules:
        msg = (
            f"rules must be given to the guard that optimizer has already, got {optimizer!r}: "
            "pass them there, as in gradstable.adamw(3e-4, rules=(...,))"
        )
        raise ValueError(msg)
    chosen: dict[str, _Options] = {
        "record": record,
        "kahan": kahan,
        "loss_scale": loss_scale,
        "accumulate": every,
        "backoff": backoff,
        "rollback": rollback,
        "govern": govern,
        "guard": not guarded,
        "compress_moments": compress_moments,
    }
    tx = optimizer
    for name in reversed(ORDER):
        if name in chosen and _is_wanted(name, chosen[name]):
            tx = _wrap(name, tx, rules if name == "guard" else (), chosen[name], axis_name)
    return optax.with_extra_args_support(tx)


def _is_wanted(name: str, options: object) -> bool:
    if isinstance(options, bool):
        return options
    if isinstance(options, Mapping):
        return True
    msg = (
        f"{name} must be True, False, or a dictionary of keyword arguments of "
        f"{ORDER[name].partition('(')[0]}, got {options!r} of type {type(options).__name__}"
    )
    raise TypeError(msg)


def _wrap(
    name: str,
    inner: optax.GradientTransformation,
    rules: Sequence[Rule],
    options: _Options,
    axis_name: AxisName,
) -> optax.GradientTransformationExtraArgs:
    factory = _WRAPPERS[name]
    given = {} if isinstance(options, bool) else dict(options)
    if axis_name is not None and "axis_name" in inspect.signature(factory).parameters:
        given.setdefault("axis_name", axis_name)
    return factory(inner, *rules, **given)
