"""AdEMAMix, guarded."""

import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.layout import AxisName
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Mask
from gradstable._src.moments.ademamix import scale_by_ademamix
from gradstable._src.recipes.assemble import assemble
from gradstable._src.rules.protocol import Rule


@shown
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
    r"""AdEMAMix, guarded.

    Use it for runs of tens of thousands of steps on steady data. The guard matters more here than
    elsewhere: what enters the slow momentum stays for 10000 steps. Arguments as in
    ``optax.contrib.ademamix``.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_ademamix``; nothing at all on a rejected step.
    The paper warms up ``alpha`` and ``b3`` over the whole run; the example shows how.

    Args:
      learning_rate: a number >= 0 or a schedule from step to rate.
      b1: decay of the fast momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow momentum, in [0, 1), or a schedule from the number of the step (the
        first is 1) to it.
      alpha: weight of the slow momentum, >= 0, or a schedule. Default 5 (the authors' JAX code).
      eps: added outside the root, >= 0. Default 1e-8.
      eps_root: added inside the root, >= 0.
      mu_dtype: dtype in which the first moment is stored. Default float32.
      nu_dtype: dtype in which the second moment is stored. Default float32.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Default 0
        (as in optax).
      mask: tree of bools, or a function from parameters to one: which leaves to decay.
      rules: what the guard decides by. Default: ``gs.rules.log_mad()``.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
      structure and the dtypes of the gradients. ``update`` needs ``params`` to decay them.

    Raises:
      ValueError: if a hyper-parameter is out of its range.

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
    direction = scale_by_ademamix(
        b1=b1,
        b2=b2,
        b3=b3,
        alpha=alpha,
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
