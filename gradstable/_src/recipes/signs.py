"""Optimizers that cap every entry of the step: Lion and Sophia."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.moments.lion import scale_by_lion
from gradstable._src.moments.sophia import scale_by_sophia
from gradstable._src.recipes.recipe import made_of
from gradstable._src.rules.protocol import Rule


@made_of(scale_by_lion)
def lion(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 1e-3,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Lion behind the guard.

    Use it where memory is tight, with a learning rate 3 to 10 times below Adam's and a decay as
    many times above. The guard matters: Lion's step cannot explode, but one spike of 1000 times the
    usual size determines its direction for 237 steps. The arguments are those of ``optax.lion``.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_lion``. A rejected step changes nothing.

    Args:
      b1: weight of the momentum in the sign, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: dtype in which the momentum is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default
        1e-3 (as in optax).

    Example:
      >>> import gradstable as gs
      >>> tx = gs.lion(1e-4, weight_decay=1.0)

    Source:
      Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
    """
    ...


@made_of(scale_by_sophia)
def sophia(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.965,
    b2: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    gamma: ArrayLike = 0.01,
    clip_threshold: ArrayLike = 1.0,
    update_interval: ArrayLike = 10,
    mu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with Sophia behind the guard.

    Use it where you can afford a Hessian-vector product every tenth step. Pass ``hessian`` to
    ``update``, preferably as a function from parameters to an estimate of the diagonal: it runs
    only in the steps that need it, and stays in step with the optimizer, since a rejected step does
    not count. The arguments are those of ``optax.contrib.sophia``, except for those that estimate
    the diagonal.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_sophia``. A rejected step changes nothing.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the diagonal, in [0, 1).
      eps: the least denominator, >= 0. Default 1e-8, as in optax.
      gamma: factor on the diagonal, > 0.
      clip_threshold: the cap on every entry of the direction, > 0.
      update_interval: steps from one estimate to the next, >= 1.
      mu_dtype: dtype in which the momentum is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default
        1e-4 (as in optax).

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``hessian`` and ``params``.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.recipes.sophia(1e-3)
      >>> params = jnp.array([0.5, -0.5])
      >>> state = tx.init(params)
      >>> loss = lambda x: jnp.sum(jnp.cosh(x))
      >>> diagonal = lambda x: jnp.cosh(x)  # of this loss; estimate it for yours
      >>> updates, state = tx.update(jax.grad(loss)(params), state, params, hessian=diagonal)
      >>> [round(x, 5) for x in updates.tolist()]
      [-0.001, 0.001]

    Source:
      Liu, Li, Hall, Liang, Ma, "Sophia: A Scalable Stochastic Second-order Optimizer for
      Language Model Pre-training", 2023, arXiv:2305.14342.
    """
    ...
