"""Robust statistics of the log norm: the rule that ``guard`` uses by default."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_order
from gradstable._src.core.numerics import SIGMA_PER_MAD, increment, unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.recurrence import Recurrence, appeal, new_recurrence
from gradstable._src.rules.streaming import finite_log, follow

# With this initial spread, four sigma are a factor of 5.9.
_FIRST_SPREAD = 0.3
_MAX_SPREAD = 10.0  # in the statistic itself; the thresholds have their own limit
# A history up to this long can be discarded by one norm far below it.
_SETTLING = 10


class LogMadState(NamedTuple):
    """Streaming median and median absolute deviation of ``log(norm)``."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32, norms seen
    log_center: jax.Array  # shape=(), dtype=jnp.float32, median of log(norm)
    log_spread: (
        jax.Array
    )  # shape=(), dtype=jnp.float32, median absolute deviation from it; 0: unknown
    recurrence: Recurrence  # which norms come back


@shown
def log_mad(
    *,
    clip_at: ArrayLike = 4.0,
    reject_at: ArrayLike = 6.0,
    reject_above: ArrayLike = 5.0,
    rate: ArrayLike = 0.03,
    min_spread: ArrayLike = 0.1,
    max_spread: ArrayLike = 0.3,
    reject_recurring: bool = False,
) -> Rule:
    r"""Clip and reject norms that are far above their usual range, on a log scale.

    The default rule of ``guard``. Use it when you do not know what a normal gradient norm
    is, or when that changes during training: it has no limit in units of the gradient.

    The rule keeps two streaming statistics of :math:`x = \log \|g\|`, a median :math:`\mu` and a
    median absolute deviation :math:`s`. With :math:`e = x - \mu` and
    :math:`\hat\sigma = 1.4826 \min(s, s_{max})`, the gradient becomes

    .. math:: g' = \begin{cases} g & e \le c_1 \hat\sigma \\
                  g \exp(c_1 \hat\sigma - e) & e \le \max(c_2 \hat\sigma, \log r) \\
                  \text{rejected} & \text{else} \end{cases}

    and then, whatever the decision, with :math:`a_t = \max(a, 1/t)`,

    .. math:: \mu \leftarrow \mu + 1.5\, a_t\, s\, \mathrm{clip}(e / s, \pm 1), \qquad
              s \leftarrow \mathrm{clip}\left(s\, e^{\pm a_t}, s_{min}, 10\right)

    where the sign is that of :math:`|e| - s`. The statistics learn the *fact* of an outlier
    but not its size. So one spike of any size moves them by at most a fixed small step (it
    does not mask the next one), while a lasting change of level widens :math:`s`
    geometrically (it is not rejected forever). ``docs/figures`` lists how many steps it takes
    until a lasting rise by a factor of 3, 30 or 1000 is accepted. A noisy run is less surprised,
    and accepts it sooner.

    Norms that are rejected can also be a healthy minority: a task with larger gradients, a rare
    reward, the hard part of a curriculum. To reject them all would mean that it is never learned.
    So once a level (within a factor of 2 or so) has been met three times in about a thousand
    steps, where a run of rejections counts once, norms there are *let in*, clipped to

    .. math:: \min\left(e^{\mu} \min(1 + n / 32, 3),\; e^{\mu + c_1 \hat\sigma}\right)

    where :math:`n` is how many were let in during the last thousand steps or so. A step of the
    median size does little harm, even if every tenth batch is broken, and a minority that is
    not rare gets a larger part. The reason recorded is ``Reason.RECURRING_CLIPPED``, and
    ``gs.explain`` says how many there were: look at the data, and if they are faults, set
    ``reject_recurring=True``. A run of rejections is let in as well if it is longer than 5 plus
    a quarter of all norms accepted before: then the history is too short to be right.

    The very first norm has no history to be judged by. For ten steps, a norm below the whole
    range replaces the history, so that a bad *first* batch does not open the door to the next
    bad one. NaN, infinite and zero norms never enter the statistics.

    Known weakness: norms that scatter by more than a factor of 2 (:math:`\sigma > 0.75`, such
    as in reinforcement learning or at the end of a fit to zero loss) are clipped in more than
    1 % of all steps; raise ``max_spread`` there. And the rule follows steady growth: plain SGD on
    a recurrent network that explodes from the first step on also needs a limit in units of the
    gradient, ``gs.guard(optax.sgd(0.1), gs.rules.log_mad(), gs.rules.global_norm(1.0))``.

    Args:
      clip_at: :math:`c_1`, robust standard deviations above the median at which clipping
        begins, > 0. Default 4: it touches 0.02 % of normally distributed log norms, and less than
        1 % of the steps of real runs, where 3 touches up to 3 % (``docs/design``).
      reject_at: :math:`c_2`, the same for rejection, >= ``clip_at``. Default 6.
      reject_above: :math:`r`, the multiple of the median norm below which nothing is rejected,
        only clipped, >= 1. Default 5, so that a very steady run does not stop learning when
        its norm triples for good.
      rate: :math:`a`, how fast the statistics move, in (0, 1). Default 0.03: a memory of
        about 30 steps.
      min_spread: :math:`s_{min}` in units of log(norm), > 0. Default 0.1, so that a very
        steady run is not clipped for a change of 80 %.
      max_spread: :math:`s_{max}` of the thresholds, >= ``min_spread``. Default 0.3: nothing
        above 5.9 times the median passes unclipped, and what is above 14.4 times is rejected.
      reject_recurring: whether to go on rejecting norms that keep coming back. Default ``False``:
        starving a healthy task in silence is worse than learning a little from broken batches.

    Returns:
      A ``Rule`` whose state, ``LogMadState``, is a few scalars and 128 counts.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4), gs.rules.log_mad(clip_at=3.0, reject_at=8.0))

    Source:
      Our own. The streaming median is a stochastic approximation with bounded influence
      (Huber, "Robust Estimation of a Location Parameter", 1964).
    """
    check_number("clip_at", clip_at, above=0.0)
    check_number("reject_at", reject_at, above=0.0)
    check_number("reject_above", reject_above, at_least=1.0)
    check_number("rate", rate, above=0.0, below=1.0)
    check_number("min_spread", min_spread, above=0.0)
    check_number("max_spread", max_spread, above=0.0)
    check_order("clip_at", clip_at, "reject_at", reject_at)
    check_order("min_spread", min_spread, "max_spread", max_spread)

    def init(params: Any) -> LogMadState:
        del params
        return LogMadState(
            norms_seen=jnp.zeros((), jnp.int32),
            log_center=jnp.zeros((), jnp.float32),
            log_spread=jnp.zeros((), jnp.float32),
            recurrence=new_recurrence(),
        )

    def decide(measure: Measure, state: LogMadState, **_: Any) -> tuple[Verdict, LogMadState]:
        # Not by the number of norms: if it was set from outside, there may be no history.
        known, counts = state.log_spread > 0, measure.norm > 0
        state = state._replace(norms_seen=jnp.where(known, jnp.maximum(state.norms_seen, 0), 0))
        x = finite_log(measure.norm)
        sigma = SIGMA_PER_MAD * jnp.minimum(state.log_spread, max_spread)
        clip_above = jnp.multiply(clip_at, sigma)
        excess = jnp.where(known & counts, x - state.log_center, 0.0)
        far = excess > jnp.maximum(jnp.multiply(reject_at, sigma), jnp.log(reject_above))
        recurs, medians, recurrence = appeal(state.recurrence, x, far)
        let_in = recurs if not reject_recurring else jnp.zeros_like(recurs)
        size = jnp.where(let_in, jnp.minimum(jnp.log(medians), clip_above), clip_above)
        verdict = _judge(excess, size, far, let_in)
        limit = jnp.where(known, jnp.exp(state.log_center + clip_above), unlimited())

        restart = ~known | ((state.norms_seen < _SETTLING) & (excess < -clip_above))
        learned = _learn(state, x, excess, rate, min_spread, restart)
        learned = learned._replace(recurrence=recurrence)
        state = jax.tree.map(lambda new, old: jnp.where(counts, new, old), learned, state)
        return verdict._replace(threshold=limit), state

    return Rule(init=init, decide=decide)


def _judge(excess: jax.Array, size: jax.Array, far: jax.Array, let_in: jax.Array) -> Verdict:
    """Return the verdict; ``size`` is the log of the size that is left, in medians."""
    clip = excess > size
    reason = jnp.where(clip, Reason.SPIKE_CLIPPED, Reason.OK)
    reason = jnp.where(far, Reason.SPIKE_REJECTED, reason)
    return Verdict.of(
        accept=~far | let_in,
        scale=jnp.where(clip, jnp.exp(size - excess), 1.0),
        reason=jnp.where(let_in, Reason.RECURRING_CLIPPED, reason),
    )


def _learn(
    state: LogMadState,
    x: jax.Array,
    excess: jax.Array,
    rate: ArrayLike,
    min_spread: ArrayLike,
    restart: jax.Array,
) -> LogMadState:
    count = increment(state.norms_seen)
    gain = jnp.maximum(rate, 1.0 / count.astype(jnp.float32))
    center, spread = follow(state.log_center, state.log_spread, excess, gain)
    return state._replace(
        norms_seen=count,
        log_center=jnp.where(restart, x, center),
        log_spread=jnp.where(restart, _FIRST_SPREAD, jnp.clip(spread, min_spread, _MAX_SPREAD)),
    )
