"""Variants of Adam: other second moments, other warm-ups."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.moments.adamax import scale_by_adamax
from gradstable._src.moments.amsgrad import scale_by_amsgrad
from gradstable._src.moments.belief import scale_by_belief
from gradstable._src.moments.radam import scale_by_radam
from gradstable._src.moments.yogi import scale_by_yogi
from gradstable._src.recipes.recipe import made_of
from gradstable._src.rules.protocol import Rule


@made_of(scale_by_amsgrad)
def amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_maximum: bool = False,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AMSGrad, whose second moment never falls, behind the guard.

    Use it in place of ``optax.amsgrad``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_amsgrad``. A spike slows it for good; the guard keeps
    spikes out of the maximum.

    Args:
      bias_correction_mu: whether to correct the first moment. Default ``True``.
      bias_correction_nu: whether to correct the second moment. Default ``True``.
      correct_maximum: whether to correct after taking the maximum, as in torch. Default ``False``,
        as in optax.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.amsgrad(3e-4)

    Source:
      Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """
    ...


@made_of(scale_by_adamax)
def adamax(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdaMax, which uses a decaying maximum as second moment, behind the guard.

    Use it in place of ``optax.adamax``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_adamax``, at most 1.009 with the defaults.

    Args:
      b2: decay of the maximum, in [0, 1). Default 0.999.
      eps: added to each new ``|g|``, in units of the gradient, >= 0. Default 1e-8.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adamax(1e-3)

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980.
    """
    ...


@made_of(scale_by_radam)
def radam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    threshold: ArrayLike = 5.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with RAdam, which warms up on its own, behind the guard.

    Use it in place of ``optax.radam``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_radam``. Its first five steps are plain gradient
    descent and have no bound, and the guard has no history yet. If the first gradients are large,
    pass ``rules=(gs.rules.global_norm(...), gs.rules.log_mad())``.

    Args:
      threshold: the length of the average from which the second moment is used, >= 4. Default 5.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.radam(1e-3)

    Source:
      Liu, Jiang, He, Chen, Liu, Gao, Han, "On the Variance of the Adaptive Learning Rate and
      Beyond", 2019, arXiv:1908.03265.
    """
    ...


@made_of(scale_by_yogi)
def yogi(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-3,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Yogi, whose second moment falls slowly, behind the guard.

    Use it in place of ``optax.yogi``; the arguments have the same names and defaults. The first
    moment starts at 0, as in the paper, not at 1e-6.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_yogi``.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.yogi(1e-2)

    Source:
      Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive Methods for Nonconvex Optimization", 2018.
    """
    ...


@made_of(scale_by_belief)
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

    Use it in place of ``optax.adabelief``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_belief``. A step has no bound where gradients do not
    change, and no guard can see that: pass a larger ``eps`` where features are rare.

    Args:
      b2: decay of the variance, in [0, 1). Default 0.999.
      eps_root: added to the variance at each step, >= 0. Default 1e-16.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default
        ``None``: no decay, and the state of ``optax.adabelief``, which has no decay.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adabelief(1e-3)

    Source:
      Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris, Duncan, "AdaBelief Optimizer:
      Adapting Stepsizes by the Belief in Observed Gradients", 2020, arXiv:2010.07468.
    """
    ...
