"""Reject a step whose loss is far above its usual range."""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.numerics import SIGMA_PER_MAD, increment, largest_norm_in
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_value
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.recurrence import Recurrence, appeal, new_recurrence
from gradstable._src.rules.ring import Ring, median_and_mad, new_ring, number_held, push
from gradstable._src.rules.streaming import follow

_TINY = float(jnp.finfo(jnp.float32).tiny)


class LossSpikeState(NamedTuple):
    """Streaming median and median absolute deviation of the loss."""

    losses_seen: jax.Array  # shape=(), dtype=jnp.int32, losses seen
    loss_center: jax.Array  # shape=(), dtype=jnp.float32, median of the loss
    loss_spread: jax.Array  # shape=(), dtype=jnp.float32, median absolute deviation; 0: unknown
    first_losses: Ring  # the losses of the warm-up
    recurrence: Recurrence  # which losses come back, by how far they are above the median
    last_far: jax.Array  # shape=(), dtype=jnp.float32, the last loss far above it


@shown
def loss_spike(
    *,
    reject_at: ArrayLike = 6.0,
    rate: ArrayLike = 0.03,
    min_spread: ArrayLike = 0.01,
    warmup_steps: int = 20,
    reject_recurring: bool = False,
) -> Rule:
    r"""Reject a step whose loss is far above its usual range.

    Use it along with a rule on the gradient, where the loss reveals a bad batch that the gradient
    does not. ``update`` needs the loss of the same batch: ``tx.update(grads, state,
    params, value=loss)``. The loss can have any sign and scale.

    The rule keeps two streaming statistics of the loss :math:`v`, a median :math:`\mu` and a
    median absolute deviation :math:`s`. A step is

    .. math:: \text{rejected} \iff v - \mu > 1.4826\, c\, s

    and then, whatever the decision, with :math:`e = v - \mu` and :math:`a_t = \max(a, 1/t)`,

    .. math:: \mu \leftarrow \mu + 1.5\, a_t\, s\, \mathrm{clip}(e / s, \pm 1), \qquad
              s \leftarrow \max\left(s\, e^{\pm a_t}, s_{min} |\mu|\right)

    where the sign is that of :math:`|e| - s`. A loss of exactly zero leaves :math:`s` unchanged:
    that of a hinge or a triplet tells nothing about the losses of other batches, and if most are
    zero, :math:`s` is the size of the rest. They begin as median and median absolute deviation
    of the first ``warmup_steps`` losses, so that a bad first batch does not open the door to the
    next. One spike of any size moves them by a fixed small step, while a lasting change widens
    :math:`s` geometrically and is eventually accepted: a loss of 3 that scatters by 0.05 and
    rises for good to 4, 9 or 300 is rejected for at most 40, 98 and 227 steps. A loss that is not
    finite, or beyond ``2**60``, rejects the step and never enters the statistics.

    Losses that keep coming back can belong to a task or a kind of batch. As with ``log_mad``, they
    are *let in* once a level (within a factor of 2 or so above the median) has been met three times
    in about a thousand steps, or in a long run. The gradient is multiplied by
    :math:`1.4826\, c\, s / (v - \mu)`: of its excess, the loss keeps what would not be rejected.

    Known weakness: it repairs nothing. A loss that is high because an earlier step broke the
    parameters is rejected until it counts as normal, and the parameters stay broken. And it
    assumes that losses scatter roughly symmetrically: where log losses scatter by 0.6, as with
    very small batches, 0.6 % of healthy steps are rejected; raise ``reject_at`` there.

    Args:
      reject_at: ``c``, robust standard deviations above the median at which rejection begins,
        > 0. Default 6.
      rate: ``a``, how fast the statistics move, in (0, 1). Default 0.03: a memory of about 30
        steps.
      min_spread: :math:`s_{min}`, the smallest spread as a fraction of the median loss, >= 0.
        Default 0.01, so that a very steady loss can rise by 9 %.
      warmup_steps: number of initial losses that are only observed, >= 2. Default 20.
      reject_recurring: whether to go on rejecting losses that keep coming back. Default ``False``:
        starving a healthy task in silence is worse than learning a little from broken batches.

    Returns:
      A ``Rule`` whose state is a ``LossSpikeState``.

    Raises:
      ValueError: if an argument is out of range, and in ``update`` if the loss is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1), gs.rules.loss_spike())
      >>> params = jnp.ones(2)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(jnp.ones(2), state, params, value=jnp.nan)
      >>> print(gs.explain(state).splitlines()[1])
      1 rejected because the loss was not finite, or far above its usual range.

    Source:
      Our own: the statistics of ``log_mad``, on the loss itself.
    """
    check_number("reject_at", reject_at, above=0.0)
    check_number("rate", rate, above=0.0, below=1.0)
    check_number("min_spread", min_spread, at_least=0.0)
    check_size("warmup_steps", warmup_steps, at_least=2)

    def init(params: Any) -> LossSpikeState:
        del params
        return LossSpikeState(
            losses_seen=jnp.zeros((), jnp.int32),
            loss_center=jnp.zeros((), jnp.float32),
            loss_spread=jnp.zeros((), jnp.float32),
            first_losses=new_ring(warmup_steps),
            recurrence=new_recurrence(),
            last_far=jnp.zeros((), jnp.float32),
        )

    def decide(
        measure: Measure, state: LossSpikeState, *, value: ArrayLike | None = None, **_: Any
    ) -> tuple[Verdict, LossSpikeState]:
        del measure
        loss = check_value(value, "loss_spike", state.loss_center.dtype)
        countable = jnp.abs(loss) <= largest_norm_in(loss.dtype)
        limit = jnp.multiply(jnp.asarray(reject_at, jnp.float32), SIGMA_PER_MAD * state.loss_spread)
        judged = (number_held(state.first_losses) >= warmup_steps) & (state.loss_spread > 0)
        excess = loss - state.loss_center
        far = countable & judged & (excess > limit)
        size = jnp.where(far, excess, 1.0)
        level = jnp.where(far, jnp.log(size), usual_level(state.loss_spread, jnp))
        recurs, _medians, recurrence = appeal(state.recurrence, level, far)
        let_in = recurs if not reject_recurring else jnp.zeros_like(recurs)
        accept = countable & (~far | let_in)
        reason = jnp.where(accept, Reason.OK, Reason.LOSS_REJECTED)
        verdict = Verdict.of(
            accept=accept,
            scale=jnp.where(let_in, limit / size, 1.0),
            reason=jnp.where(let_in, Reason.RECURRING_LOSS, reason),
        )
        learned = _learn(state, loss, warmup_steps, rate, min_spread)
        last_far = jnp.where(far, loss, state.last_far)
        learned = learned._replace(recurrence=recurrence, last_far=last_far)
        return verdict, jax.tree.map(
            lambda new, old: jnp.where(countable, new, old), learned, state
        )

    return Rule(init=init, decide=decide)


def usual_level(spread: Any, numpy: ModuleType) -> Any:
    """Return the level of losses that are not far above the median: well below all others."""
    return numpy.log(numpy.maximum(spread, _TINY)) - 2.0


def _learn(
    state: LossSpikeState,
    loss: jax.Array,
    warmup_steps: int,
    rate: ArrayLike,
    min_spread: ArrayLike,
) -> LossSpikeState:
    watching = number_held(state.first_losses) < warmup_steps
    first = push(state.first_losses, loss, when=watching)
    # The number of losses only sets the pace; whether there were any is seen from the statistics.
    count = jnp.maximum(increment(state.losses_seen), number_held(first))
    median, deviation = median_and_mad(first)
    gain = jnp.maximum(jnp.asarray(rate, jnp.float32), 1.0 / count.astype(jnp.float32))
    excess = loss - state.loss_center
    known = jnp.where(state.loss_spread > 0, state.loss_spread, jnp.abs(excess))
    center, spread = follow(state.loss_center, known, excess, gain)
    center = jnp.where(watching, median, center)
    least = jnp.multiply(jnp.asarray(min_spread, jnp.float32), jnp.abs(center))
    # If a hinge is zero for most batches, the spread would vanish, and all others be rejected.
    spread = jnp.where(loss == 0, state.loss_spread, spread)
    spread = jnp.maximum(jnp.where(watching, deviation, spread), least)
    return state._replace(
        losses_seen=count, loss_center=center, loss_spread=spread, first_losses=first
    )
