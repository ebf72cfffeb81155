"""Clip norms several standard deviations above the mean of a window, as Levanter does."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, check_size
from gradstable._src.core.numerics import unlimited
from gradstable._src.core.reasons import Reason
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.rules.protocol import Rule
from gradstable._src.rules.ring import Ring, mean_and_std, new_ring, number_held, push

# In units of the update: a spread below it is assumed to be rounding.
_MIN_STD = 1e-6


@shown
def window_clip(*, window: int = 128, clip_at: ArrayLike = 3.0) -> Rule:
    r"""Scale an update down to the mean of recent norms plus several standard deviations.

    It was made for *updates*: put ``gs.clipping.clip_by(gs.rules.window_clip())`` after the
    optimizer in a chain, where it bounds what stale second moments let through and no clip of
    gradients can see. As a rule of ``gs.guard`` it judges gradients in the same way.

    With mean and population standard deviation of the last ``W`` norms,

    .. math:: c = \mu_W + k \max(\sigma_W, 10^{-6}), \qquad g' = g \cdot \min(1, c / \|g\|)

    and then the norm enters the window unclipped, so that the window cannot collapse. Nothing is
    clipped before half of the window is full.

    Known weakness: the spike stays in the window. After one spike of 1000 times the norm, the
    limit is 273 times the norm for the next 128 steps; of ten such spikes in a row, the last
    leaves 838 times the norm. And the smallest spread is absolute: where norms are far below
    1e-6, nothing is ever clipped.

    Args:
      window: ``W``, how many norms are remembered, >= 2. Default 128, as in Levanter.
      clip_at: ``k``, standard deviations above the mean at which clipping begins, > 0. Default
        3, as in Levanter.

    Returns:
      A ``Rule`` whose state is a ``Ring``. It never rejects.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> rule = gs.rules.window_clip(window=64)
      >>> tx = optax.chain(optax.scale_by_adam(), gs.clipping.clip_by(rule), optax.scale(-1e-3))

    Source:
      Levanter, ``clip_update_by_historical_norm``, Stanford CRFM, 2025.
    """
    check_size("window", window, at_least=2)
    check_number("clip_at", clip_at, above=0.0)

    def decide(measure: Measure, state: Ring, **_: Any) -> tuple[Verdict, Ring]:
        norm = measure.norm
        mean, std = mean_and_std(state, ddof=0)
        limit = mean + jnp.multiply(jnp.asarray(clip_at, jnp.float32), jnp.maximum(std, _MIN_STD))
        limit = jnp.where(number_held(state) >= max(2, window // 2), limit, unlimited())
        above = norm > limit
        verdict = Verdict.of(
            scale=jnp.where(above, limit / norm, 1.0),
            reason=jnp.where(above, Reason.HISTORY_CLIPPED, Reason.OK),
            threshold=limit,
        )
        return verdict, push(state, norm)

    return Rule(init=lambda _params: new_ring(window), decide=decide)
