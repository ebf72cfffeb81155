"""The kin of Adam, guarded: other second moments, other beginnings."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.moments.adamax import scale_by_adamax
from gradstable._src.moments.amsgrad import scale_by_amsgrad
from gradstable._src.moments.radam import scale_by_radam
from gradstable._src.moments.yogi import scale_by_yogi
from gradstable._src.recipes.assemble import assemble
from gradstable._src.rules.protocol import Rule


@shown
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

    Use it in place of ``optax.amsgrad``: the arguments have the same names and defaults (by keyword
    after the first).

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_amsgrad``. A spike slows it for good; the guard is
    what keeps it out of the maximum.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the second moment, in [0, 1). Default 0.999.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0. Default 0.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      bias_correction_mu: whether to correct the first moment. Default ``True``.
      bias_correction_nu: whether to correct the second moment. Default ``True``.
      correct_maximum: whether to correct after the maximum was taken, as in torch. Default
        ``False``, as in optax.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.amsgrad(3e-4)

    Source:
      Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """
    direction = scale_by_amsgrad(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        correct_maximum=correct_maximum,
    )
    return assemble(direction, learning_rate=learning_rate, rules=rules, axis_name=axis_name)


@shown
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
    r"""Train with AdaMax, a decaying maximum for a second moment, behind the guard.

    Use it in place of ``optax.adamax``: the arguments have the same names and defaults (by keyword
    after the first).

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_adamax``, at most 1.009 with the defaults.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the maximum, in [0, 1). Default 0.999.
      eps: added to each new ``|g|``, in units of the gradient, >= 0. Default 1e-8.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adamax(1e-3)

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980.
    """
    direction = scale_by_adamax(
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return assemble(direction, learning_rate=learning_rate, rules=rules, axis_name=axis_name)


@shown
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
    r"""Train with RAdam, which warms up by itself, behind the guard.

    Use it in place of ``optax.radam``: the arguments have the same names and defaults (by keyword
    after the first).

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_radam``. Its first five steps are those of gradient
    descent and have no bound, and the guard has no history yet: give
    ``rules=(gs.rules.global_norm(...), gs.rules.log_mad())`` where first gradients are large.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the second moment, in [0, 1). Default 0.999.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0. Default 0.
      threshold: from which length of the average on the second moment is used, >= 4. Default 5.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      nesterov: whether the first moment looks one step ahead. Default ``False``.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.radam(1e-3)

    Source:
      Liu, Jiang, He, Chen, Liu, Gao, Han, "On the Variance of the Adaptive Learning Rate and
      Beyond", 2019, arXiv:1908.03265.
    """
    direction = scale_by_radam(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        threshold=threshold,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
    )
    return assemble(direction, learning_rate=learning_rate, rules=rules, axis_name=axis_name)


@shown
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

    Use it in place of ``optax.yogi``: the arguments have the same names and defaults (by keyword
    after the first). The first moment starts at 0, as in the paper, and not at 1e-6.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_yogi``.

    Args:
      learning_rate: :math:`\eta`, a number >= 0 or a schedule from step to rate.
      b1: decay of the first moment, in [0, 1). Default 0.9.
      b2: decay of the second moment, in [0, 1). Default 0.999.
      eps: added outside the root, in units of the gradient, >= 0. Default 1e-3.
      mu_dtype: dtype of the first moment. Default float32.
      nu_dtype: dtype of the second moment. Default float32.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.yogi(1e-2)

    Source:
      Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive Methods for Nonconvex Optimization", 2018.
    """
    direction = scale_by_yogi(
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    return assemble(direction, learning_rate=learning_rate, rules=rules, axis_name=axis_name)
