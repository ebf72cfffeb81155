"""Adam and its nearest kin, guarded."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._core.norms import AxisName
from gradstable.moments.adam import adam_transform
from gradstable.recipes.assemble import Mask, assemble
from gradstable.rules import Rule


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: ArrayLike = 1e-4,
    mask: Mask = None,
    nesterov: bool = False,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamW that does not blow up: ``gs.guard`` around moments that survive.

    Use it in place of ``optax.adamw``: the arguments have the same names and defaults (by
    keyword after the first).

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.scale_by_adam``; nothing at all on a rejected step, neither decay
    nor a tick of the schedule.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0.
      eps_root: added inside the root, >= 0.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      weight_decay: :math:`\lambda`, >= 0, times the learning rate. Default 1e-4, as in optax.
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      nesterov: whether the first moment looks one step ahead.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params``.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000), b2=0.95)

    Source:
      Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """
    direction = adam_transform(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
        guarded=True,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )
