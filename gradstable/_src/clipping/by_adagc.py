"""AdaGC as a transform."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.adagc import adagc


@shown
def clip_by_adagc(
    *,
    factor: ArrayLike = 1.04,
    decay: ArrayLike = 0.99,
    max_norm: ArrayLike = 1.0,
    warmup: int = 100,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip every leaf to a multiple of the running mean of its own clipped norms (AdaGC).

    The rule, its formula and its weaknesses are those of ``gs.rules.adagc``.

    Args:
      factor: the multiple, without unit, >= 1. Default 1.04, as published.
      decay: of the running mean, in [0, 1). Default 0.99, as published.
      max_norm: limit on the global norm in the warm-up, in units of the gradient, > 0. Default
        1.0, as published.
      warmup: the first step that is limited leaf by leaf, >= 0. Default 100, as published.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by_adagc(), optax.adamw(3e-4, b2=0.95))

    Source:
      Wang et al., 2025, arXiv:2502.11034.
    """
    rule = adagc(factor=factor, decay=decay, max_norm=max_norm, warmup=warmup)
    return clip_by_rule(rule, axis_name=axis_name)
