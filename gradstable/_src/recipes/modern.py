"""Newer relatives of Adam: Adan, ADOPT, AdEMAMix."""

from collections.abc import Callable

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.moments.adan import scale_by_adan
from gradstable._src.moments.ademamix import scale_by_ademamix
from gradstable._src.moments.adopt import fourth_root, scale_by_adopt
from gradstable._src.recipes.recipe import made_of
from gradstable._src.rules.protocol import Rule


@made_of(scale_by_adan)
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
    r"""Train with Adan, with the weights of the paper, behind the guard.

    Use it with large batches and learning rates 5 to 10 times those of Adam. The arguments are
    those of ``optax.adan``, which gives the difference of gradients a weight of 0.08 instead of
    0.92.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adan``. A rejected step changes nothing. The authors'
    code divides by :math:`1 + \eta \lambda` instead of subtracting (our form is its ``no_prox``).

    Args:
      b2: decay of the differences, and their weight, in [0, 1). Default 0.92.
      b3: decay of the second moment, in [0, 1). Default 0.99.
      eps_root: added inside the root, >= 0. Default 1e-8, as in ``optax.adan``: 1e-4 in units of
        the gradient. The paper and ``gs.moments.scale_by_adan`` use 0.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.adan(1e-3, weight_decay=0.02)

    Source:
      Xie, Zhou, Li, Lin, Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster
      Optimizing Deep Models", 2022, arXiv:2208.06677.
    """
    ...


@made_of(scale_by_adopt)
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
    r"""Train with ADOPT behind the guard.

    Use it where Adam with a large ``b2`` oscillates. The arguments are those of
    ``optax.contrib.adopt``, plus a decoupled decay (ADOPTW).

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adopt``. A rejected step changes nothing.

    Args:
      eps: the least denominator, >= 0. Default 1e-6.
      use_clipping: whether to clip what enters the first moment. Leave it on.
      clip_value_fn: function from the number of earlier steps to the clip limit.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipes.adopt(1e-3)

    Source:
      Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal
      Rate", 2024, arXiv:2411.02853.
    """
    ...


@made_of(scale_by_ademamix)
def ademamix(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdEMAMix behind the guard.

    Use it for runs of tens of thousands of steps on steady data. The guard matters more here than
    elsewhere: what enters the slow momentum stays for 10,000 steps. The arguments are those of
    ``optax.contrib.ademamix``.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_ademamix``. A rejected step changes nothing. The paper
    warms up ``alpha`` and ``b3`` over the whole run; the example shows how.

    Args:
      b1: decay of the fast momentum, in [0, 1). Default 0.9.
      b3: decay of the slow momentum, in [0, 1), or a schedule for it, called with the step number
        (the first is 1). Default 0.9999.
      alpha: weight of the slow momentum, >= 0, or a schedule. Default 5 (the authors' JAX code).

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> steps = 50_000
      >>> tx = gs.recipes.ademamix(
      ...     1e-3,
      ...     b3=gs.moments.half_life_schedule(0.9, transition_steps=steps),
      ...     alpha=optax.linear_schedule(0.0, 5.0, steps),
      ... )

    Source:
      Pagliardini, Ablin, Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
      arXiv:2409.03137.
    """
    ...
