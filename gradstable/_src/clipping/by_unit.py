"""Adaptive gradient clipping as a transform."""

import optax
from jax.typing import ArrayLike

from gradstable._src.clipping.judged import clip_by_rule
from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.units import Units
from gradstable._src.rules.unit_norm import unit_norm


@shown
def clip_by_unit_norm(
    clipping: ArrayLike = 0.01,
    *,
    eps: ArrayLike = 1e-3,
    units: Units = "flax",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip every unit beside its weights: in place of ``optax.adaptive_grad_clip`` (AGC).

    The rule, its units and its weaknesses are told in ``gs.rules.unit_norm``. It agrees with
    optax on ``Dense`` and ``Conv`` kernels and on vectors, judges stacked layers each by
    themselves, and survives NaN and overflow. It needs ``params``.

    .. math:: g_i' = g_i \cdot \min\left(1, \frac{\lambda \max(\|W_i\|, \epsilon)}
                                              {\|g_i\|}\right)

    Args:
      clipping: the share :math:`\lambda`, without unit, > 0. Default 0.01, as published.
      eps: the least norm of weights, in units of the parameters, > 0. Default 1e-3, as
        published.
      units: as for ``gs.guard``. Default ``"flax"``: output rows of Flax layers.
      axis_name: as for ``gs.guard``. Default ``None``.

    Returns:
      A ``GradientTransformationExtraArgs``; updates keep structure and dtypes.

    Raises:
      TypeError: if units are of a wrong kind.
      ValueError: if a number is not positive or a kind of units is unknown; in ``update``, if
        there are no ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> params = {"kernel": jnp.ones((4, 2))}
      >>> g = {"kernel": jnp.array([[0.01, 1e9]] * 4)}
      >>> tx = gs.clipping.clip_by_unit_norm(0.01)
      >>> tx.update(g, tx.init(params), params)[0]["kernel"][0].tolist()
      [0.01, 0.01]

    Source:
      Brock, De, Smith, Simonyan, 2021, arXiv:2102.06171.
    """
    rule = unit_norm(clipping, eps=eps, units=units)
    return clip_by_rule(rule, axis_name=axis_name)
