"""AdamW with both moments in two bytes per parameter."""

import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.moments.adam_8bit import scale_by_adam_8bit
from gradstable._src.recipes.recipe import made_of
from gradstable._src.rules.protocol import Rule


@made_of(scale_by_adam_8bit)
def adamw_8bit(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with AdamW behind the guard, with 2 bytes of state per parameter instead of 8.

    Use it in place of ``gs.adamw`` where memory matters, or the time of the optimizer on a GPU.
    Learning rates and decay are those of AdamW.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adam_8bit``. A rejected step changes nothing: there is
    no decay, and the schedule does not advance.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> tx = gs.adamw_8bit(3e-4)
      >>> state = jax.eval_shape(tx.init, {"kernel": jnp.ones((1000, 1000))})
      >>> round(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / 1e6, 2)
      2.0

    Source:
      Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101; see
      ``gs.moments.scale_by_adam_8bit`` for the moments.
    """
    ...
