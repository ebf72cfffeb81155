"""ZClip: clip norms whose z-score is high."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_choice, check_number, check_size
from gradstable._src.core.numerics import increment, unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule

Mode = Literal["adaptive_scaling", "mean", "percentile"]


class ZScoreState(NamedTuple):
    """State of ``zscore``: moving averages of the norms after clipping."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32, norms seen; stops at warmup_steps
    mean_norm: jax.Array  # shape=(), dtype=jnp.float32
    norm_variance: jax.Array  # shape=(), dtype=jnp.float32


@shown
def zscore(
    *,
    clip_at: ArrayLike = 2.5,
    decay: ArrayLike = 0.97,
    max_norm: ArrayLike | None = 1.0,
    mode: Mode = "adaptive_scaling",
    clip_factor: ArrayLike = 1.0,
    skip_update_on_spike: bool = False,
    warmup_steps: int = 25,
    eps: ArrayLike = 1e-6,
) -> Rule:
    r"""Scale down a gradient whose norm has a high z-score.

    Use it as published, with its fixed limit of 1, for pre-training language models. Without
    that limit it is not safe if the norm can rise for good (see below): prefer ``log_mad``.

    With moving mean :math:`\mu`, variance :math:`\sigma^2` and
    :math:`z = (\|g\| - \mu) / (\sigma + \varepsilon)`, a spike is clipped to

    .. math:: c = \begin{cases}
                f \cdot (\mu + z^* \sigma \cdot z^* / z) & z > z^*
                  \text{ (adaptive\_scaling)} \\
                \mu & z > z^* \text{ (mean)} \\
                \mu + z^* \sigma & \|g\| > \mu + z^* \sigma \text{ (percentile)} \end{cases}

    and everything to ``max_norm``: :math:`g' = g \min(c, c_{max}) / \|g\|`. Then the averages
    learn :math:`x = c`, or :math:`\|g\|` if there is no spike, but never the effect of
    ``max_norm``:

    .. math:: \mu \leftarrow \alpha \mu + (1 - \alpha) x, \qquad
              \sigma^2 \leftarrow \alpha \sigma^2 + (1 - \alpha)(x - \mu)^2

    The first ``warmup_steps`` norms give the initial mean and variance; meanwhile only
    ``max_norm`` clips. In the reference code one NaN disables it for good. Here, non-finite norms
    are rejected and never enter, and a zero norm does not enter either.

    Known weakness: it locks in. Since the averages only learn clipped norms, a norm that
    rises for good is clipped to the old level forever: measured with ``max_norm=None`` on log
    norms that scatter by 0.05, after a rise by 2 times the last 1000 of 5000 steps are all
    clipped, to 1.01 instead of 2, and :math:`\sigma` falls to 0. If they scatter by 0.2, a rise
    by 2 times eventually passes, and one by 3 times does not. With ``mode="percentile"`` every
    rise does, but so do 59 % of spikes if every fifth norm is one. The default ``max_norm`` only
    hides this if it is lower than the norms.

    Args:
      clip_at: :math:`z^*`, > 0. Default 2.5, as published.
      decay: :math:`\alpha`, in [0, 1). Default 0.97, as published.
      max_norm: :math:`c_{max}`, in units of the gradient, > 0. Default 1, as published;
        ``None``: no fixed limit.
      mode: what a spike is clipped to, see above. Default ``"adaptive_scaling"``, as published:
        the larger the spike, the smaller it becomes.
      clip_factor: ``f``, > 0. Default 1; the authors use 0.5 to 0.9 to clip harder.
      skip_update_on_spike: whether to leave the averages unchanged at a spike. Only the averages
        are not updated; the step itself is taken. Default ``False``, as published.
      warmup_steps: number of initial norms that are only observed, >= 1. Default 25, as published.
      eps: :math:`\varepsilon`, in units of the gradient, > 0. Default 1e-6, as published.

    Returns:
      A ``Rule`` whose state is a ``ZScoreState``. It never rejects.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> rule = gs.rules.zscore(max_norm=None, mode="percentile")
      >>> tx = gs.guard(optax.adamw(3e-4), rule)

    Source:
      Kumar, Owen, Roy Chowdhury, Güra, "ZClip: Adaptive Spike Mitigation for LLM
      Pre-Training", 2025, arXiv:2504.02507, and its reference code.
    """
    check_number("clip_at", clip_at, above=0.0)
    check_number("decay", decay, at_least=0.0, below=1.0)
    if max_norm is not None:
        check_number("max_norm", max_norm, above=0.0)
    check_choice("mode", mode, ("adaptive_scaling", "mean", "percentile"))
    check_number("clip_factor", clip_factor, above=0.0)
    check_size("warmup_steps", warmup_steps, at_least=1)
    check_number("eps", eps, above=0.0)

    def init(params: Any) -> ZScoreState:
        del params
        return ZScoreState(
            norms_seen=jnp.zeros((), jnp.int32),
            mean_norm=jnp.zeros((), jnp.float32),
            norm_variance=jnp.zeros((), jnp.float32),
        )

    def decide(measure: Measure, state: ZScoreState, **_: Any) -> tuple[Verdict, ZScoreState]:
        # Without a mean there was no norm, even if the count was set to more from outside.
        seen = jnp.where(state.mean_norm > 0, jnp.maximum(state.norms_seen, 0), 0)
        state = state._replace(norms_seen=seen)
        norm, known = measure.norm, seen >= warmup_steps
        limit, target = _spike(state, norm, mode, clip_at, clip_factor, eps)
        limit = jnp.where(known, limit, unlimited())
        spike = norm > limit
        learns = jnp.where(spike, target, norm)
        ceiling = jnp.asarray(unlimited() if max_norm is None else max_norm, jnp.float32)
        allowed = jnp.minimum(learns, ceiling)
        above = norm > allowed
        verdict = Verdict.of(
            scale=jnp.where(above, allowed / norm, 1.0),
            reason=jnp.where(
                spike, Reason.ZSCORE_CLIPPED, jnp.where(above, Reason.NORM_CLIPPED, Reason.OK)
            ),
            threshold=jnp.minimum(limit, ceiling),
        )
        followed = _follow(state, learns, jnp.asarray(decay, jnp.float32))
        learned = jax.tree.map(
            lambda new, old: jnp.where(known, new, old), followed, _watch(state, norm)
        )
        learn = (norm > 0) & ~(spike & skip_update_on_spike)
        return verdict, jax.tree.map(lambda new, old: jnp.where(learn, new, old), learned, state)

    return Rule(init=init, decide=decide)


def _spike(
    state: ZScoreState,
    norm: jax.Array,
    mode: Mode,
    clip_at: ArrayLike,
    clip_factor: ArrayLike,
    eps: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Return the norm above which a step is a spike, and the norm to clip a spike to."""
    z_limit, factor, eps = (jnp.asarray(x, jnp.float32) for x in (clip_at, clip_factor, eps))
    std = jnp.sqrt(state.norm_variance)
    if mode == "percentile":
        limit = state.mean_norm + z_limit * std
        return limit, limit
    limit = state.mean_norm + z_limit * (std + eps)
    if mode == "mean":
        return limit, state.mean_norm
    z = (norm - state.mean_norm) / (std + eps)
    # Only used where z is above z_limit; the maximum keeps the rest finite.
    return limit, factor * (state.mean_norm + z_limit * std * (z_limit / jnp.maximum(z, z_limit)))


def _watch(state: ZScoreState, norm: jax.Array) -> ZScoreState:
    """Return mean and variance of all norms so far (Welford)."""
    count = increment(state.norms_seen)
    seen = count.astype(jnp.float32)
    mean = state.mean_norm + (norm - state.mean_norm) / seen
    var = (
        state.norm_variance
        + ((norm - state.mean_norm) * (norm - mean) - state.norm_variance) / seen
    )
    return ZScoreState(norms_seen=count, mean_norm=mean, norm_variance=var)


def _follow(state: ZScoreState, norm: jax.Array, decay: jax.Array) -> ZScoreState:
    mean = decay * state.mean_norm + (1.0 - decay) * norm
    var = decay * state.norm_variance + (1.0 - decay) * jnp.square(norm - mean)
    return ZScoreState(norms_seen=state.norms_seen, mean_norm=mean, norm_variance=var)
