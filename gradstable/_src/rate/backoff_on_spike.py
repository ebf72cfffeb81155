"""A smaller step for a while after a spike."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import keep_finite, scale_updates
from gradstable._src.core.agreed import agreed
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_number
from gradstable._src.core.norms import measure
from gradstable._src.core.numerics import increment, statistic
from gradstable._src.core.scale import countable
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state, check_updates
from gradstable._src.core.types import Measure
from gradstable._src.rules.log_mad import log_mad
from gradstable._src.rules.protocol import Rule, all_of, check_rules


class BackoffOnSpikeState(NamedTuple):
    """State of ``backoff_on_spike``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    step_factor: jax.Array  # shape=(), dtype=jnp.float32, the factor of the last step
    spikes: jax.Array  # shape=(), dtype=jnp.int32, number of spikes so far
    rule_state: tuple[Any, ...]


@shown
def backoff_on_spike(
    factor: ArrayLike = 0.5,
    *,
    recovery: ArrayLike = 100.0,
    min_scale: ArrayLike = 0.01,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply updates by a factor that falls with every spike and climbs back after it.

    Use it if spikes come in bursts, or if the model needs some time to settle after one. It does
    not remove a spike (it halves it): use it together with ``gs.guard``, not instead of it.

    .. math:: s \leftarrow \begin{cases} \max(s_{min}, f s) & \text{spike} \\
                   \min(1, s f^{-1/R}) & \text{else} \end{cases} \qquad u' = s\, u

    The effect of one spike is over after ``R`` steps without another, and that of any number of
    them after :math:`R \log s_{min} / \log f` (665 with the defaults). It never gets stuck, since
    the default rule eventually accepts a level shift.

    A spike is a norm that a rule would reject. This is the norm of the incoming updates, so after
    plain momentum nothing more is needed. After Adam, whose updates always have about the same
    size, or after a guard, which returns zeros for a rejected step, pass the norm of the raw
    gradient: ``update(..., grad_norm=gs.global_norm(gradients))``. A norm that is not finite is a
    spike. Updates that are not finite, or have a norm above ``2**60``, become zero.

    Known weakness: spikes that come more often than every ``R`` steps add up. The default rule
    stops counting them once their level is known, after three or four. With
    ``log_mad(reject_recurring=True)``, one every 102 steps costs 28 % of the rate on average, and
    one every 50 steps nearly all of it (a factor of 0.012).

    Args:
      factor: ``f``, in (0, 1). Default 0.5; 0.707 in AdaLR-Lion.
      recovery: ``R``, in steps, > 0. Default 100, the timeout of AdaLR-Lion.
      min_scale: :math:`s_{min}`, the smallest factor, in (0, 1]. Default 0.01.
      rules: a norm is a spike if one of them rejects it. Default ``gs.rules.log_mad()``.
      axis_name: mesh axes over which leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``BackoffOnSpikeState``; updates keep
      structure and dtypes.

    Raises:
      TypeError: if a rule is not a ``Rule``.
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.rate.backoff_on_spike()
      >>> state = tx.init(jnp.ones(2))
      >>> for norm in (1.0, 1.1, 100.0):
      ...     u, state = tx.update(jnp.ones(2), state, grad_norm=norm)
      >>> u.tolist()
      [0.5, 0.5]

    Source:
      Our own: the outlier timeout of MosaicML's AdaLR-Lion (llm-foundry, 2023), made smooth.
    """
    check_number("factor", factor, above=0.0, below=1.0)
    check_number("recovery", recovery, above=0.0)
    check_number("min_scale", min_scale, above=0.0, at_most=1.0)
    rules = rules or (log_mad(),)
    check_rules(rules)
    check_axis_name(axis_name)
    judge = all_of(*rules)

    def init_fn(params: optax.Params) -> BackoffOnSpikeState:
        return BackoffOnSpikeState(
            calls=jnp.zeros((), jnp.int32),
            step_factor=jnp.ones((), jnp.float32),
            spikes=jnp.zeros((), jnp.int32),
            rule_state=judge.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        grad_norm: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BackoffOnSpikeState]:
        old = check_state(state, BackoffOnSpikeState, "backoff_on_spike")
        updates, params = check_updates(updates, params)
        extra_args = agreed(extra_args, axis_name)
        incoming = measure(updates, axis_name=axis_name)
        seen = incoming if grad_norm is None else Measure.of(statistic(grad_norm))
        verdict, rule_state = judge.decide(seen, old.rule_state, params=params, **extra_args)
        fall, grow = jnp.asarray(factor, jnp.float32), growth(factor, recovery)
        scale = jnp.where(
            verdict.accept,
            jnp.minimum(old.step_factor * grow, 1.0),
            jnp.maximum(old.step_factor * fall, jnp.asarray(min_scale, jnp.float32)),
        )
        sound = incoming.finite & countable(incoming)
        new_state = BackoffOnSpikeState(
            calls=increment(old.calls),
            step_factor=scale,
            spikes=jnp.where(verdict.accept, old.spikes, increment(old.spikes)),
            rule_state=rule_state,
        )
        return keep_finite(sound, scale_updates(updates, scale), None), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def growth(factor: ArrayLike, recovery: ArrayLike) -> jax.Array:
    """Return the factor per step with which ``recovery`` steps undo ``factor``."""
    if isinstance(factor, (int, float)) and isinstance(recovery, (int, float)):
        return jnp.asarray(math.exp(-math.log(factor) / recovery), jnp.float32)
    log = jnp.log(jnp.asarray(factor, jnp.float32))
    return jnp.exp(-log / jnp.asarray(recovery, jnp.float32))
