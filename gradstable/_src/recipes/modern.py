"""Adam's modern kin, guarded: Adan, ADOPT, LaProp, Adam-atan2."""

from collections.abc import Callable

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Mask
from gradstable._src.moments.adam_atan2 import scale_by_adam_atan2
from gradstable._src.moments.adan import scale_by_adan
from gradstable._src.moments.adopt import fourth_root, scale_by_adopt
from gradstable._src.moments.laprop import scale_by_laprop
from gradstable._src.recipes.assemble import assemble
from gradstable._src.rules.protocol import Rule


@shown
def adan(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.98,
    b2: ArrayLike = 0.92,
    b3: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 1e-8,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adan with the weights of the paper, guarded.

    Use it with large batches and learning rates 5 to 10 times those of Adam. Arguments as in
    ``optax.adan``, which gives the difference of gradients a weight of 0.08 instead of 0.92.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adan``; nothing at all on a rejected step.
    The authors' code divides by :math:`1 + \eta \lambda` instead of subtracting (and has ours as
    ``no_prox``).

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the differences, and their weight, in [0, 1).
      b3: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0. Default 1e-8, as in ``optax.adan``: 1e-4 in units of
        the gradient. The paper's is 0, as that of ``gs.moments.scale_by_adan``.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default 0
        (the authors').
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adan(1e-3, weight_decay=0.02)

    Source:
      Xie, Zhou, Li, Lin, Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster
      Optimizing Deep Models", 2022, arXiv:2208.06677.
    """
    direction = scale_by_adan(
        b1=b1,
        b2=b2,
        b3=b3,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )


@shown
def adopt(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.9999,
    eps: ArrayLike = 1e-6,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], ArrayLike] = fourth_root,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ADOPT, guarded.

    Use it where Adam with a large ``b2`` oscillates. Arguments as in ``optax.contrib.adopt``, and
    a decoupled decay (ADOPTW).

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adopt``; nothing at all on a rejected step.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: the least denominator, >= 0. Default 1e-6.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      nesterov: whether the first moment looks one step ahead.
      use_clipping: whether to clip what enters the first moment. Leave it.
      clip_value_fn: from the number of steps before this one to the clip.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default 0
        (the authors').
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.adopt(1e-3)

    Source:
      Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
      Rate", 2024, arXiv:2411.02853.
    """
    direction = scale_by_adopt(
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )


@shown
def laprop(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-15,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LaProp, guarded.

    Use it to choose ``b1`` and ``b2`` freely, such as ``b1=0.99`` with ``b2=0.95``.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_laprop``; nothing at all on a rejected step.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate. The paper's: 4e-4.
      b1: decay of the average of normalized gradients, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0. Default 1e-15.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default 0
        (the authors', whose decay is not times the learning rate).
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.laprop(4e-4)

    Source:
      Ziyin, Wang, Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020,
      arXiv:2002.04839.
    """
    direction = scale_by_laprop(
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )


@shown
def adam_atan2(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    a: ArrayLike = 1.27,
    b: ArrayLike = 1.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with an arc tangent for the division, guarded.

    Use it where no ``eps`` fits all layers: no update exceeds 1.995, and none depends on the
    scale of the loss.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adam_atan2``; nothing at all on a rejected step.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      a: factor on the update, > 0.
      b: factor on the denominator, > 0.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default
        0.
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.adam_atan2(1e-3, weight_decay=0.1)

    Source:
      Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024,
      arXiv:2407.05872.
    """
    direction = scale_by_adam_atan2(
        b1=b1,
        b2=b2,
        a=a,
        b=b,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )
