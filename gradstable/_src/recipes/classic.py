"""Gradient descent and the first adaptive methods."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.moments.adadelta import scale_by_adadelta
from gradstable._src.moments.averages import trace
from gradstable._src.moments.decay import check_decays
from gradstable._src.moments.engine import under_guard
from gradstable._src.moments.rms import scale_by_rms
from gradstable._src.moments.rss import scale_by_rss
from gradstable._src.recipes.recipe import made_of, published, recipe
from gradstable._src.rules.protocol import Rule


@published
def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train by gradient descent behind the guard, with momentum on request.

    Use it in place of ``optax.sgd``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    where :math:`u` is the gradient, or its ``gs.moments.trace``. A step is proportional to the
    gradient, so all of its safety comes from the guard.

    Args:
      momentum: its decay, in [0, 1). Default ``None``: no momentum, and no state for it.
      nesterov: whether the momentum looks one step ahead; no effect without momentum. Default
        ``False``.
      accumulator_dtype: dtype in which the momentum is stored. Default float32.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.sgd(0.1, momentum=0.9, nesterov=True)

    Source:
      Robbins, Monro, "A Stochastic Approximation Method", 1951; momentum as in
      ``gs.moments.trace``.
    """
    direction = optax.identity()
    if momentum is not None:
        check_decays(momentum=momentum)
        direction = trace(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    return recipe(direction, learning_rate, rules=rules, axis_name=axis_name)


@published
def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    *,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    nu_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with RMSprop behind the guard.

    Use it in place of ``optax.rmsprop``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_rms``. Momentum is applied after the learning rate, as
    in optax and torch.

    Args:
      decay: decay of the mean square, in [0, 1). Default 0.9.
      eps: added to the mean square, or to its root, >= 0. Default 1e-8.
      initial_scale: where the mean square starts, >= 0. Default 0.
      eps_in_sqrt: whether ``eps`` is added inside the root. Default ``True``; torch adds it
        outside.
      centered: whether to divide by the standard deviation instead. Default ``False``.
      momentum: decay of a sum of steps, in [0, 1). Default ``None``: no momentum.
      nesterov: whether the momentum looks one step ahead. Default ``False``.
      bias_correction: whether to correct the averages, as Adam does. Default ``False``.
      nu_dtype: dtype in which the averages are stored. Default float32.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.rmsprop(1e-3, momentum=0.9)

    Source:
      Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012.
    """
    direction = scale_by_rms(
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        bias_correction=bias_correction,
        centered=centered,
        nu_dtype=nu_dtype,
    )
    after: tuple[optax.GradientTransformation, ...] = ()
    if momentum is not None:
        check_decays(momentum=momentum)
        after = (trace(momentum, nesterov=nesterov),)
    return recipe(direction, learning_rate, after=after, rules=rules, axis_name=axis_name)


@made_of(scale_by_rss)
def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    *,
    initial_accumulator_value: ArrayLike = 0.1,
    eps: ArrayLike = 1e-7,
    nu_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Adagrad behind the guard.

    Use it in place of ``optax.adagrad``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_rss``. A spike slows it for good; the guard keeps
    spikes out of the sum.

    Args:
      initial_accumulator_value: where the sum of squares starts, >= 0. Default 0.1.
      eps: added inside the root, in units of the gradient squared, >= 0. Default 1e-7.
      nu_dtype: dtype in which the sum is stored. Default float32.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adagrad(0.1)

    Source:
      Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization", 2011.
    """
    ...


@published
def adadelta(
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    rho: ArrayLike = 0.9,
    eps: ArrayLike = 1e-6,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    nu_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Adadelta, whose steps are in units of the parameters, behind the guard.

    Use it in place of ``optax.adadelta``; the arguments have the same names and defaults (by
    keyword after the first). The paper has no learning rate; without one, the step is the paper's,
    downhill. ``optax.adadelta()`` returns it with the sign of the gradient.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_adadelta``, applied to :math:`g + \lambda \theta`.

    Args:
      rho: decay of both averages, in [0, 1). Default 0.9.
      eps: added inside both roots, > 0. Default 1e-6.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule; it is *added to the gradient*,
        as in optax. Default 0.
      nu_dtype: dtype in which both averages are stored. Default float32.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adadelta()

    Source:
      Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """
    check_weight_decay("weight_decay", weight_decay)
    direction = optax.chain(
        decay_weights(weight_decay, weight_decay_mask),
        under_guard(scale_by_adadelta(rho=rho, eps=eps, nu_dtype=nu_dtype)),
    )
    rate = 1.0 if learning_rate is None else learning_rate
    return recipe(direction, rate, rules=rules, axis_name=axis_name)
