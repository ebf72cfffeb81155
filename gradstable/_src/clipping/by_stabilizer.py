"""GradientStabilizer as a transform."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.rules.gradient_stabilizer import gradient_stabilizer


@shown
def scale_by_gradient_stabilizer(
    *,
    b1: ArrayLike = 0.6,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 0.0,
    bias_correction: bool = False,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the direction of every leaf, and replace its norm by one out of its history.

    The rule, its formula and its weaknesses are those of ``gs.rules.gradient_stabilizer``. It
    scales small gradients up and large ones down, so that all come out with norms near 1: the
    learning rate of plain SGD behind it has to be found anew.

    Args:
      b1: decay of the mean norm, in [0, 1). Default 0.6, as published; 0.7 is safer with 0.9.
      b2: decay of the mean square, in [0, 1). Default 0.999, as published.
      eps: in units of the gradient, >= 0, outside the root. Default 0, as published.
      bias_correction: whether both means are corrected at first. Default: no, as published.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      ValueError: if an argument is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> first_version = {"b1": 0.7, "b2": 0.9, "eps": 1e-8, "bias_correction": True}
      >>> tx = optax.chain(
      ...     gs.clipping.scale_by_gradient_stabilizer(**first_version), optax.adamw(3e-4)
      ... )

    Source:
      Huang et al., 2025, arXiv:2502.17055.
    """
    rule = gradient_stabilizer(b1=b1, b2=b2, eps=eps, bias_correction=bias_correction)
    return clip_by_rule(rule, axis_name=axis_name)
