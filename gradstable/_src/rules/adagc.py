"""AdaGC: limit every leaf to a multiple of the running mean of its own clipped norms."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number
from gradstable._src.core.numerics import increment, unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.block_norm import down_to
from gradstable._src.rules.protocol import Rule


class AdagcState(NamedTuple):
    """State of ``adagc``."""

    norms_seen: jax.Array  # shape=(), dtype=jnp.int32
    mean_norms: (
        jax.Array
    )  # shape=(L,), dtype=jnp.float32, of the clipped norms of a leaf; 0: unknown


@shown
def adagc(
    *,
    max_multiple: ArrayLike = 1.04,
    decay: ArrayLike = 0.99,
    max_norm: ArrayLike = 1.0,
    warmup_steps: int = 100,
) -> Rule:
    r"""Limit every leaf to a multiple of the running mean of its own clipped norms.

    Use it where spikes begin in single matrices, and where you want a norm that hardly moves:
    it is closer to a normalization of every leaf than to a guard against rare spikes. For the
    latter, ``log_mad`` leaves healthy steps alone. For :math:`t < t_0` the whole gradient is
    clipped to a fixed norm, and the mean of every leaf is the smallest norm seen so far:

    .. math:: h = \min(1, c / \|g\|), \qquad \gamma_i \leftarrow \min(\gamma_i, h \|g_i\|)

    and from :math:`t_0` on

    .. math:: h_i = \min(1, \lambda \gamma_i / \|g_i\|), \qquad
              \gamma_i \leftarrow \beta \gamma_i + (1 - \beta) h_i \|g_i\|

    Known weaknesses. On stationary norms that scatter by 10, 30 or 50 % (log-normal) it clips
    49, 75 and 82 % of all steps, since the mean of clipped values settles below the median,
    at 0.97, 0.79 and 0.61 of it. The mean rises by at most :math:`(1 - \beta)(\lambda - 1)`,
    0.04 % per step: after the norm triples for good, it takes 2 650 steps until a gradient passes
    unclipped.

    It differs from the paper in one point: a leaf whose gradient is zero does not update its mean
    in that step. As published, a zero in the warm-up (the first step of every LoRA matrix) makes
    the mean zero, and the leaf never moves again.

    Args:
      max_multiple: the multiple :math:`\lambda`, without unit, >= 1. Default 1.04, as published.
      decay: :math:`\beta`, in [0, 1). Default 0.99, as published.
      max_norm: the limit ``c`` on the global norm in the warm-up, in units of the gradient,
        > 0. Default 1.0, as published.
      warmup_steps: :math:`t_0`, the first step that is limited leaf by leaf, >= 0. Default 100, as
        published.

    Returns:
      A ``Rule`` with one scalar per leaf, ``AdagcState``. It never rejects.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4, b2=0.95), gs.rules.adagc())

    Source:
      Wang et al., "AdaGC: Enhancing LLM Pretraining Stability via Adaptive Gradient Clipping",
      2025, arXiv:2502.11034.
    """
    check_number("max_multiple", max_multiple, at_least=1.0)
    check_number("decay", decay, at_least=0.0, below=1.0)
    check_number("max_norm", max_norm, above=0.0)
    check_number("warmup_steps", warmup_steps, at_least=0)

    def init(params: Any) -> AdagcState:
        num_leaves = len(jax.tree.leaves(params))
        return AdagcState(
            norms_seen=jnp.zeros((), jnp.int32), mean_norms=jnp.zeros((num_leaves,), jnp.float32)
        )

    def decide(measure: Measure, state: AdagcState, **_: Any) -> tuple[Verdict, AdagcState]:
        count = increment(jnp.maximum(state.norms_seen, 0))
        warming = count < warmup_steps
        fixed = jnp.asarray(max_norm, jnp.float32)
        known = state.mean_norms > 0
        limits = jnp.where(known, jnp.multiply(max_multiple, state.mean_norms), unlimited())
        scale = jnp.where(
            warming, down_to(fixed, measure.norm), down_to(limits, measure.leaf_norms)
        )
        norms = scale * measure.leaf_norms
        least = jnp.where(known, jnp.minimum(state.mean_norms, norms), norms)
        mean = jnp.where(known, decay * state.mean_norms + (1.0 - decay) * norms, norms)
        learned = jnp.where(norms > 0, jnp.where(warming, least, mean), state.mean_norms)
        because = jnp.where(warming, Reason.NORM_CLIPPED, Reason.HISTORY_CLIPPED)
        verdict = Verdict.of(
            scale=scale,
            reason=jnp.where(jnp.any(scale != 1.0), because, Reason.OK),
            threshold=jnp.where(warming, fixed, unlimited()),
        )
        return verdict, AdagcState(norms_seen=count, mean_norms=learned)

    return Rule(init=init, decide=decide)
