"""AdaBelief, guarded: a variance in place of the second moment."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Mask
from gradstable._src.moments.belief import scale_by_belief
from gradstable._src.recipes.assemble import ABSENT, assemble
from gradstable._src.rules.protocol import Rule


@shown
def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-16,
    eps_root: ArrayLike = 1e-16,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdaBelief, which divides by a variance, behind the guard.

    Use it in place of ``optax.adabelief``: the arguments have the same names and defaults (by
    keyword after the first).

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_belief``. A step has no bound where gradients do not
    change, which no guard sees: give a larger ``eps`` where features are rare.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the variance, in [0, 1). Default 0.999.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-16.
      eps_root: added to the variance at each step, >= 0. Default 1e-16.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      nesterov: whether the first moment looks one step ahead. Default ``False``.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default
        ``None``: no decay, and the state of ``optax.adabelief``, which has none.
      mask: tree of bools, or a function from parameters to one: which leaves to decay. Default:
        all.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adabelief(1e-3)

    Source:
      Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris, Duncan, "AdaBelief Optimizer:
      Adapting Stepsizes by the Belief in Observed Gradients", 2020, arXiv:2010.07468.
    """
    direction = scale_by_belief(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=ABSENT if weight_decay is None else weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )
