"""Adam, AdamW, and both with Nesterov's lookahead."""

from typing import Any

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.moments.adam import scale_by_adam
from gradstable._src.moments.nadam import scale_by_nadam
from gradstable._src.recipes.recipe import made_of
from gradstable._src.rules.protocol import Rule


@made_of(scale_by_adam)
def adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Adam that does not blow up: ``gs.guard`` around moments that survive.

    Use it in place of ``optax.adam``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_adam``. For weight decay, use ``gs.adamw``.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adam(3e-4, b2=0.95)

    Source:
      Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980.
    """
    ...


@made_of(scale_by_adam)
def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    nesterov: bool = False,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdamW that does not blow up: ``gs.guard`` around moments that survive.

    Use it in place of ``optax.adamw``; the arguments have the same names and defaults.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adam``. A rejected step changes nothing: there is no
    decay, and the schedule does not advance.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000), b2=0.95)

    Source:
      Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """
    ...


def _look_ahead(
    *,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike,
    eps_root: ArrayLike,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    nesterov: bool,
    momentum_decay: ArrayLike | None,
) -> optax.GradientTransformationExtraArgs:
    options: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    options |= {"mu_dtype": mu_dtype, "nu_dtype": nu_dtype}
    if momentum_decay is None:
        return scale_by_adam(nesterov=nesterov, **options)
    if not nesterov:
        msg = (
            f"nesterov must be True with momentum_decay={momentum_decay}, which is the schedule of "
            "Nesterov's momentum, got False: leave one of them out"
        )
        raise ValueError(msg)
    return scale_by_nadam(momentum_decay=momentum_decay, **options)


@made_of(_look_ahead)
def nadam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    momentum_decay: ArrayLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with NAdam, which looks one step ahead, behind the guard.

    Use it in place of ``optax.nadam``; the arguments have the same names and defaults. With
    ``momentum_decay=4e-3`` it is the paper's and torch's.

    .. math:: \theta \leftarrow \theta - \eta\, u

    with :math:`u` from ``gs.moments.scale_by_adam(nesterov=True)`` or
    ``gs.moments.scale_by_nadam``. A step is bounded by 8.42 or 14.6 (Adam: 7.27) with the default
    decays.

    Args:
      nesterov: whether the first moment looks one step ahead. Default ``True``; ``False`` makes
        this Adam.
      momentum_decay: how fast the momentum rises, >= 0; 4e-3 gives Dozat's NAdam, as in torch and
        ``gs.moments.scale_by_nadam``. Default ``None``: a constant momentum, as in optax.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.nadam(3e-4)

    Source:
      Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    ...


@made_of(_look_ahead)
def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    nesterov: bool = True,
    momentum_decay: ArrayLike | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with NAdam and decoupled weight decay behind the guard.

    Use it in place of ``optax.nadamw``; the arguments have the same names and defaults. With
    ``momentum_decay=4e-3`` it is the paper's and torch's.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` as in ``gs.nadam``. A rejected step changes nothing.

    Args:
      nesterov: as for ``gs.nadam``.
      momentum_decay: as for ``gs.nadam``.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.nadamw(3e-4, weight_decay=0.1)

    Source:
      Dozat, "Incorporating Nesterov Momentum into Adam", 2016; the decay as in Loshchilov, Hutter,
      "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
    """
    ...
