"""The rules under the names that users of optax look for: ``clip_by_*``."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.global_norm import global_norm
from gradstable._src.rules.log_mad import log_mad


@shown
def clip_by_global_norm(
    max_norm: ArrayLike, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Clip to a fixed global norm, safely: in place of ``optax.clip_by_global_norm``.

    The rule is ``gs.rules.global_norm``. Unlike optax's, it clips a float32 gradient of 1e20
    or a float16 one of 300 instead of silently zeroing it, and it gives zeros for a gradient
    with a NaN instead of making all of it NaN.

    .. math:: g' = g \cdot \min(1, c / \|g\|)

    Args:
      max_norm: the limit ``c``, in units of the gradient, > 0. 1.0 in most language models.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if ``max_norm`` is not a positive number.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.clipping.clip_by_global_norm(1.0)
      >>> g = jnp.array([3e20, 4e20])
      >>> tx.update(g, tx.init(g))[0].round(3).tolist()
      [0.6000000238418579, 0.800000011920929]

    Source:
      Pascanu, Mikolov, Bengio, 2013, arXiv:1211.5063.
    """
    return clip_by_rule(global_norm(max_norm), axis_name=axis_name)


@shown
def clip_by_log_mad(
    *,
    clip_at: ArrayLike = 4.0,
    reject_at: ArrayLike = 6.0,
    reject_above: ArrayLike = 5.0,
    rate: ArrayLike = 0.03,
    min_spread: ArrayLike = 0.1,
    max_spread: ArrayLike = 0.3,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip norms far above their usual range, and zero those that are farther still.

    The rule, its formula and its arguments are those of ``gs.rules.log_mad``.

    Args:
      clip_at: robust standard deviations at which clipping begins, > 0.
      reject_at: the same for zeroing the step, >= ``clip_at``.
      reject_above: multiple of the median norm below which nothing is zeroed, >= 1.
      rate: how fast the statistics move, in (0, 1).
      min_spread: least spread of log(norm), > 0.
      max_spread: largest spread that the thresholds follow, >= ``min_spread``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by_log_mad(), optax.sgd(0.1, momentum=0.9))

    Source:
      Ours, see ``gs.rules.log_mad``.
    """
    rule = log_mad(
        clip_at=clip_at,
        reject_at=reject_at,
        reject_above=reject_above,
        rate=rate,
        min_spread=min_spread,
        max_spread=max_spread,
    )
    return clip_by_rule(rule, axis_name=axis_name)
