"""SPAM and Stable-SPAM, guarded."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Mask
from gradstable._src.moments.spam import scale_by_spam
from gradstable._src.moments.stable_spam import scale_by_stable_spam
from gradstable._src.recipes.assemble import assemble
from gradstable._src.rules.protocol import Rule


@shown
def spam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    threshold: ArrayLike = 5000.0,
    reset_every: ArrayLike = 500,
    warmup_steps: ArrayLike = 150,
    clip_after: ArrayLike = 20,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SPAM, guarded.

    Use it to reproduce SPAM. What it is made for, a spike, the guard rejects before any moment
    sees it.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_spam``; nothing at all on a rejected step.
    The authors decay the parameters after the step, by the same share.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, >= 0. Default 1e-6.
      threshold: largest square, in units of the second moment, > 0.
      reset_every: steps from reset to reset, >= 1.
      warmup_steps: steps of warm-up after a reset, >= 0.
      clip_after: steps after a reset before it clips again, >= 0.
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
      >>> tx = gs.recipes.spam(1e-3)

    Source:
      Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
      arXiv:2501.06842.
    """
    direction = scale_by_spam(
        b1=b1,
        b2=b2,
        eps=eps,
        threshold=threshold,
        reset_every=reset_every,
        warmup_steps=warmup_steps,
        clip_after=clip_after,
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
def stable_spam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    gamma1: ArrayLike = 0.7,
    gamma2: ArrayLike = 0.9,
    theta: ArrayLike = 0.999,
    reset_every: ArrayLike = 1000,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Stable-SPAM, guarded.

    Use it for training in 4 bits, and wherever norms jump by orders of magnitude.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_stable_spam``; nothing at all on a rejected step.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0. Default 1e-8.
      gamma1: decay of the average norm of a leaf, in [0, 1).
      gamma2: decay of its average square, in [0, 1).
      theta: decay of the average largest entry of a leaf, in [0, 1).
      reset_every: steps from reset to reset, >= 1.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default 0
        (the authors').
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``, and for the norms of leaves.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.stable_spam(1e-3)

    Source:
      Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam", 2025,
      arXiv:2502.17055.
    """
    direction = scale_by_stable_spam(
        b1=b1,
        b2=b2,
        eps=eps,
        gamma1=gamma1,
        gamma2=gamma2,
        theta=theta,
        reset_every=reset_every,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        axis_name=axis_name,
    )
    return assemble(
        direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        rules=rules,
        axis_name=axis_name,
    )
