"""Reduce the step when the loss stops falling, judged only by sound losses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.act import keep_finite, scale_updates
from gradstable._src.core.agreed import mean_over
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.norms import measure
from gradstable._src.core.numerics import float32, increment, is_zero, unlimited, widest
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state, check_updates, check_value
from gradstable._src.core.types import Measure
from gradstable._src.rules.log_mad import log_mad
from gradstable._src.rules.protocol import Rule, all_of, check_rules


class ReduceOnPlateauState(NamedTuple):
    """State of ``reduce_on_plateau``."""

    count: jax.Array  # shape=(), dtype=jnp.int32
    scale: jax.Array  # shape=(), dtype=jnp.float32
    best_value: jax.Array  # shape=(), float32, or float64 if a leaf is
    plateau_count: jax.Array  # shape=(), dtype=jnp.int32, judgments without improvement
    cooldown_count: jax.Array  # shape=(), dtype=jnp.int32, judgments still to wait
    total: jax.Array  # shape=(), of the dtype of best_value, sum of the values to average
    counted: jax.Array  # shape=(), dtype=jnp.int32, number of values to average
    ignored: jax.Array  # shape=(), dtype=jnp.int32, total number of values that were left out
    rule_state: tuple[Any, ...]


@shown
def reduce_on_plateau(
    factor: ArrayLike = 0.1,
    *,
    patience: ArrayLike = 10,
    rtol: ArrayLike = 1e-4,
    atol: ArrayLike = 0.0,
    cooldown: ArrayLike = 0,
    accumulation_size: int = 1,
    min_scale: ArrayLike = 0.0,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Reduce the step when a loss has stopped improving, and ignore bad losses.

    Use it in place of ``optax.contrib.reduce_on_plateau``, after the optimizer, with
    ``update(..., value=loss)``: the arguments have the same names and defaults (by keyword
    after the first). A value is left out if it is not finite, if it spikes, or if its step
    moved nothing (the guard rejected it, or the rate was zero): it affects neither best value,
    nor mean, nor patience.

    The mean of ``accumulation_size`` values is an improvement if it is below the best one so far
    by more than :math:`rtol\, |best| + atol`. After ``patience`` means without an improvement the
    scale is multiplied by ``factor``, and the next ``cooldown`` means are not counted.

    .. math:: s \leftarrow \max(s_{min}, f s) \text{ on a plateau}, \qquad u' = s\, u

    It is built from scratch: the optax version lets a NaN into its mean, keeps the best value in
    bfloat16 if the parameters are (so that an improvement below 0.4 % does not count), and takes a
    constant negative loss for an improvement each time, since ``(1 - rtol) * best`` is above it.

    Known weakness: the scale never rises again. And a loss that is zero or negative is not
    checked for spikes, since these are detected in its logarithm.

    Args:
      factor: ``f``, in (0, 1). Default 0.1.
      patience: means without improvement before a reduction, >= 1. Default 10.
      rtol: improvement that counts, relative to the best value, in [0, 1]. Default 1e-4.
      atol: the same in units of the loss, >= 0. Default 0.
      cooldown: means that are not judged after a reduction, >= 0. Default 0.
      accumulation_size: values in a mean, >= 1. Default 1, for a validation loss; use more for
        the loss of a batch.
      min_scale: :math:`s_{min}`, in [0, 1]. Default 0.
      rules: a value is a spike if one of them would reject it as a norm. Default
        ``gs.rules.log_mad(reject_above=1.5)``.
      axis_name: mesh axes over which leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``ReduceOnPlateauState``; updates keep
      structure and dtypes. ``update`` needs ``value``.

    Raises:
      TypeError: if a rule is not a ``Rule``.
      ValueError: if a number is out of range, or, in ``update``, if ``value`` is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.rate.reduce_on_plateau(0.5, patience=2)
      >>> state = tx.init(jnp.ones(2))
      >>> for value in (1.0, 1.0, jnp.nan, 1.0):
      ...     u, state = tx.update(jnp.ones(2), state, value=value)
      >>> u.tolist()
      [0.5, 0.5]

    Source:
      ``torch.optim.lr_scheduler.ReduceLROnPlateau`` and ``optax.contrib.reduce_on_plateau``.
    """
    settings = _Settings(factor, patience, rtol, atol, cooldown, min_scale)
    _check(settings)
    check_size("accumulation_size", accumulation_size, at_least=1)
    rules = rules or (log_mad(reject_above=1.5),)
    check_rules(rules)
    check_axis_name(axis_name)
    judge = all_of(*rules)

    def init_fn(params: optax.Params) -> ReduceOnPlateauState:
        return _start(judge.init(params), widest(params))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        value: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ReduceOnPlateauState]:
        old = check_state(state, ReduceOnPlateauState, "reduce_on_plateau")
        updates, params = check_updates(updates, params)
        loss = check_value(mean_over(value, axis_name), "reduce_on_plateau", old.total.dtype)
        moved = measure(updates, axis_name=axis_name)
        verdict, rule_state = judge.decide(
            Measure.of(loss), old.rule_state, params=params, value=loss, **extra_args
        )
        counts = verdict.accept & moved.finite & (moved.norm > 0.0)
        counted = jnp.where(counts, increment(old.counted), old.counted)
        seen = old._replace(
            count=increment(old.count),
            # Not a product with the flag: NaN times zero is NaN.
            total=old.total + jnp.where(counts, loss, 0.0),
            counted=counted,
            ignored=jnp.where(counts, old.ignored, increment(old.ignored)),
            rule_state=rule_state,
        )
        full = counts & (counted >= accumulation_size)
        mean = seen.total / jnp.maximum(counted, 1).astype(seen.total.dtype)
        new = jax.tree.map(
            lambda after, before: jnp.where(full, after, before), _judge(seen, mean, settings), seen
        )
        return keep_finite(jnp.asarray(True), scale_updates(updates, new.scale), None), new

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _start(rule_state: tuple[Any, ...], dtype: DTypeLike) -> ReduceOnPlateauState:
    return ReduceOnPlateauState(
        count=jnp.zeros((), jnp.int32),
        scale=jnp.ones((), jnp.float32),
        best_value=jnp.full((), unlimited(dtype), dtype),
        plateau_count=jnp.zeros((), jnp.int32),
        cooldown_count=jnp.zeros((), jnp.int32),
        total=jnp.zeros((), dtype),
        counted=jnp.zeros((), jnp.int32),
        ignored=jnp.zeros((), jnp.int32),
        rule_state=rule_state,
    )


class _Settings(NamedTuple):
    factor: ArrayLike
    patience: ArrayLike
    rtol: ArrayLike
    atol: ArrayLike
    cooldown: ArrayLike
    min_scale: ArrayLike


def _check(settings: _Settings) -> None:
    check_number("factor", settings.factor, above=0.0, below=1.0)
    check_number("patience", settings.patience, at_least=1)
    check_number("rtol", settings.rtol, at_least=0.0, at_most=1.0)
    check_number("atol", settings.atol, at_least=0.0)
    if is_zero(settings.rtol):
        check_number("atol", settings.atol, above=0.0, hint="One of rtol and atol must be positive")
    check_number("cooldown", settings.cooldown, at_least=0)
    check_number("min_scale", settings.min_scale, at_least=0.0, at_most=1.0)


def _judge(
    state: ReduceOnPlateauState, mean: jax.Array, settings: _Settings
) -> ReduceOnPlateauState:
    """Return the state after a full mean: improved, waiting, or one step closer to a reduction."""
    best = state.best_value
    rtol, atol = (jnp.asarray(number, best.dtype) for number in (settings.rtol, settings.atol))
    margin = rtol * jnp.abs(best) + atol
    better = (mean < best - margin) | ~jnp.isfinite(best)
    stale = jnp.where(better | (state.cooldown_count > 0), 0, increment(state.plateau_count))
    reduce = stale >= jnp.asarray(settings.patience, jnp.int32)
    reduced = jnp.maximum(state.scale * float32(settings.factor), float32(settings.min_scale))
    rest = jnp.maximum(state.cooldown_count - 1, 0)
    return state._replace(
        scale=jnp.where(reduce, reduced, state.scale),
        best_value=jnp.where(better, mean, best),
        plateau_count=jnp.where(reduce, 0, stale),
        cooldown_count=jnp.where(reduce, jnp.asarray(settings.cooldown, jnp.int32), rest),
        total=jnp.zeros((), best.dtype),
        counted=jnp.zeros((), jnp.int32),
    )
