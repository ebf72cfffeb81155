"""Limits around a learning-rate schedule."""

import math
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_order, check_rate
from gradstable._src.core.numerics import unlimited

# A limit on growth looks back as many steps as it takes to climb the whole range.
_MAX_STEPS = 10_000


def limit_schedule(
    schedule: optax.ScalarOrSchedule,
    *,
    min_value: float,
    max_value: float,
    max_growth: float = 1.1,
) -> optax.Schedule:
    r"""Keep a learning rate within bounds, and limit the factor by which it rises per step.

    Use it around any optax schedule, so that no restart, no boundary between two schedules and
    no typo multiplies the rate by 100 from one step to the next. Decreases are not limited. The
    result is still a function of the step alone, without state.

    .. math:: \eta'_t = \min_{0 \le k \le t} \gamma^{t - k}\,
                        \mathrm{clip}(\eta_k, \eta_{min}, \eta_{max})

    This is the largest rate that stays below the clipped schedule and never grows faster than
    :math:`\gamma`. A NaN from the schedule counts as the smallest rate.

    Known weakness: each call evaluates the schedule at as many past steps as it takes to climb
    from the smallest to the largest rate (97 for a factor of 10 000 with the default), which is
    cheap only compared with a large model.

    Args:
      schedule: a function from step to rate, or a number.
      min_value: the smallest rate, > 0.
      max_value: the largest rate, >= ``min_value``.
      max_growth: :math:`\gamma`, the largest factor by which the rate grows in one step, > 1;
        ``inf``: no limit. Default 1.1, which climbs a factor of 100 in 49 steps.

    Returns:
      A function from step to rate, a float32 scalar.

    Raises:
      ValueError: if a number is out of range, or if growth is so slow that more than 10 000 past
        steps would have to be evaluated.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> jump = optax.piecewise_constant_schedule(1e-3, {50: 100.0})
      >>> limited = gs.rate.limit_schedule(jump, min_value=1e-5, max_value=1.0)
      >>> [round(float(limited(step)), 4) for step in (50, 51, 52, 60, 100)]
      [0.0011, 0.0012, 0.0013, 0.0029, 0.1]

    Source:
      Our own.
    """
    check_rate("schedule", schedule)
    check_number("min_value", min_value, above=0.0)
    check_number("max_value", max_value, above=0.0)
    check_order("min_value", min_value, "max_value", max_value)
    check_number("max_growth", max_growth, above=1.0, finite=False)
    span = math.log(max_value / min_value)
    steps = 0 if math.isinf(max_growth) else math.ceil(span / math.log(max_growth))
    if steps > _MAX_STEPS:
        slowest = math.exp(span / _MAX_STEPS)
        check_number("max_growth", max_growth, at_least=slowest, hint="Or narrow the bounds")

    def rate(step: jax.Array) -> jax.Array:
        raw = schedule(step) if callable(schedule) else schedule
        value = jnp.asarray(raw, jnp.float32)
        known = jnp.where(jnp.isnan(value), jnp.float32(min_value), value)
        return jnp.clip(known, jnp.float32(min_value), jnp.float32(max_value))

    def limited(count: ArrayLike) -> jax.Array:
        now = jnp.asarray(count)
        if not steps:
            return rate(now)
        back = jnp.arange(steps + 1, dtype=now.dtype)
        past = now - back
        growth = jnp.exp(back.astype(jnp.float32) * jnp.float32(math.log(max_growth)))
        allowed = jax.vmap(rate)(jnp.maximum(past, jnp.zeros_like(past))) * growth
        return jnp.min(jnp.where(past >= 0, allowed, unlimited()))

    return cast("optax.Schedule", limited)
