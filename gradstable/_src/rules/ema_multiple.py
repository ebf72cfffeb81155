"""Reject a norm many times larger than its moving average, as AXLearn does."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import increment, unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.recurrence import Recurrence, appeal, new_recurrence
from gradstable._src.rules.streaming import finite_log


class EmaMultipleState(NamedTuple):
    """State of ``ema_multiple``."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32, accepted norms above 0
    mean_norm: jax.Array  # shape=(), dtype=jnp.float32, moving average of accepted norms
    recurrence: Recurrence  # which norms come back


@shown
def ema_multiple(
    *,
    max_multiple: ArrayLike = 20.0,
    max_norm: ArrayLike | None = None,
    decay: ArrayLike = 0.99,
    start: ArrayLike | None = 1.0,
    reject_recurring: bool = False,
) -> Rule:
    r"""Reject a norm at a multiple of the moving average of accepted norms; clip the others.

    Use it for the gross accidents that it was made for, together with a fixed limit: it does not
    estimate a spread, so the multiple must be large.

    With :math:`m` the average, a step is rejected if :math:`\|g\| \ge k\, m`, else

    .. math:: g' = g \cdot \min(1, c / \|g\|), \qquad
              m \leftarrow \beta_n m + (1 - \beta_n) \|g\|, \qquad
              \beta_n = \beta\, \frac{1 - \beta^n}{1 - \beta^{n+1}}

    with :math:`n` the number of steps accepted before: the first replaces ``start``. The average
    takes the norm before clipping, and ignores rejected steps. It also ignores a zero norm, since
    a mean of zero would reject everything after it.

    AXLearn's never learns from what it rejects, so it locks in: a gradient whose norm is 25 from
    the first step on, with the published start of 1, is rejected forever, and so is one in five at
    50 times the rest. Here, norms that keep coming back are *let in*, as by ``log_mad``: clipped to
    the mean at first, and to at most three times as much. This is also what the average learns of
    them.

    Known weakness: it knows no spread. A spike of 19 times the mean passes untouched, unless there
    is a limit as well, and after a rise by 1000 times for good it takes 500 steps until gradients
    pass as they did before.

    Args:
      max_multiple: ``k``, > 1. Default 20: in AXLearn a norm must be below all of 20, 40 and 100
        times the average, so the smallest decides.
      max_norm: ``c``, the norm to which accepted gradients are clipped, > 0. Default ``None``:
        no clipping.
      decay: :math:`\beta`, in [0, 1). Default 0.99, AXLearn's example.
      start: the average before any step is accepted, in units of the gradient, > 0. Default 1,
        as in AXLearn. ``None`` judges nothing until one step is accepted, so it cannot lock
        out the beginning of a run.
      reject_recurring: whether to go on rejecting norms that keep coming back, as published.
        Default ``False``.

    Returns:
      A ``Rule`` whose state is an ``EmaMultipleState``.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.ema_multiple(max_norm=1.0, start=None))

    Source:
      AXLearn, ``skip_and_clip_by_global_norm``, Apple, 2023. The decay is that of Shazeer and
      Stern, 2018, arXiv:1804.04235, section 7.1.
    """
    check_number("max_multiple", max_multiple, above=1.0)
    check_number("decay", decay, at_least=0.0, below=1.0)
    if max_norm is not None:
        check_number("max_norm", max_norm, above=0.0)
    if start is not None:
        check_number("start", start, above=0.0)

    def init(params: Any) -> EmaMultipleState:
        del params
        return EmaMultipleState(
            norms_seen=jnp.zeros((), jnp.int32),
            mean_norm=jnp.asarray(0.0 if start is None else start, jnp.float32),
            recurrence=new_recurrence(),
        )

    def decide(
        measure: Measure, state: EmaMultipleState, **_: Any
    ) -> tuple[Verdict, EmaMultipleState]:
        norm = measure.norm
        # Without a mean no norm was accepted, even if the count was set to more from outside.
        known = state.mean_norm > 0
        state = state._replace(norms_seen=jnp.where(known, jnp.maximum(state.norms_seen, 0), 0))
        limit = jnp.multiply(jnp.asarray(max_multiple, jnp.float32), state.mean_norm)
        if start is None:
            limit = jnp.where(known, limit, unlimited())
        far = norm >= limit
        recurs, medians, recurrence = appeal(state.recurrence, finite_log(norm), far)
        let_in = recurs if not reject_recurring else jnp.zeros_like(recurs)
        accept = ~far | let_in
        size = jnp.where(let_in, jnp.minimum(norm, medians * state.mean_norm), norm)
        ceiling = jnp.asarray(unlimited() if max_norm is None else max_norm, jnp.float32)
        left = jnp.minimum(size, ceiling)
        reason = jnp.where(size > ceiling, Reason.NORM_CLIPPED, Reason.OK)
        reason = jnp.where(let_in, Reason.RECURRING_CLIPPED, reason)
        verdict = Verdict.of(
            accept=accept,
            scale=jnp.where(left < norm, left / norm, 1.0),
            reason=jnp.where(accept, reason, Reason.HISTORY_REJECTED),
            threshold=jnp.where(accept, jnp.minimum(limit, ceiling), limit),
        )
        learned = EmaMultipleState(
            norms_seen=increment(state.norms_seen),
            mean_norm=_average(state, size, jnp.asarray(decay, jnp.float32)),
            recurrence=recurrence,
        )
        # A mean of zero would reject every norm after it.
        counts = norm > 0
        kept = _where(accept, learned, state._replace(recurrence=recurrence))
        return verdict, _where(counts, kept, state)

    return Rule(init=init, decide=decide)


def _where(condition: jax.Array, new: EmaMultipleState, old: EmaMultipleState) -> EmaMultipleState:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def _average(state: EmaMultipleState, norm: jax.Array, decay: jax.Array) -> jax.Array:
    # Equivalent to beta_n, but the weight is exactly 1 for the first norm.
    seen = increment(state.norms_seen).astype(jnp.float32)
    weight = (1.0 - decay) / (1.0 - jnp.power(decay, seen))
    return (1.0 - weight) * state.mean_norm + weight * norm
