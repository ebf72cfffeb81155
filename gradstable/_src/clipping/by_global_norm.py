"""The usual clip by global norm, without its usual defects."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.clip_by import clip_by
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.global_norm import global_norm


@shown
def clip_by_global_norm(
    max_norm: ArrayLike, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Clip to a fixed global norm, safely: a replacement for ``optax.clip_by_global_norm``.

    The rule is ``gs.rules.global_norm``. Unlike optax's, it clips a float32 gradient of 1e20
    or a float16 one of 300 instead of silently zeroing it, and it returns zeros for a gradient
    with a NaN instead of turning all of it into NaN.

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
    return clip_by(global_norm(max_norm), axis_name=axis_name)
