"""LARS and LAMB, guarded: steps proportional to the size of the parameters."""

import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_number, check_rate
from gradstable._src.core.masked import masked
from gradstable._src.core.types import Mask
from gradstable._src.core.units import Units
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.guard import guard
from gradstable._src.moments.adam import scale_by_adam
from gradstable._src.moments.averages import trace
from gradstable._src.moments.engine import under_guard
from gradstable._src.rate.trust_ratio import scale_by_trust_ratio
from gradstable._src.recipes.recipe import published
from gradstable._src.rules.protocol import Rule, check_rules


@published
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    eps_root: ArrayLike = 0.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    trust_clip: bool = False,
    units: Units | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with LAMB behind the guard: Adam's direction, scaled to the parameters of each leaf.

    Use it in place of ``optax.lamb`` for batches of many thousands; the arguments have the same
    names and defaults (by keyword after the first).

    .. math:: \theta \leftarrow \theta - \eta\, \frac{\|\theta\|}{\|u + \lambda \theta\|}
                                      (u + \lambda \theta)

    with :math:`u` from ``gs.moments.scale_by_adam`` and the ratio 1 if either norm is 0. A rejected
    step changes nothing. Parameters therefore grow by at most a factor of :math:`1 + \eta` per
    step, except in a leaf that is exactly zero.

    Args:
      eps: added outside the root, >= 0. Default 1e-6 (the paper's).
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule. Default 0, as in optax; the paper
        uses 0.01.
      trust_clip: whether the ratio is at most 1 (LAMBC). Default ``False``.
      units: the parts of a leaf that have a ratio, and are judged by rules, separately. Default
        ``None``: a leaf has one ratio, and rules have their own parts.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.lamb(1e-3, weight_decay=0.01, units="layer")

    Source:
      You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
      2019, arXiv:1904.00962.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_weight_decay("weight_decay", weight_decay)
    inner = optax.chain(
        under_guard(scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root)),
        decay_weights(weight_decay, mask),
        scale_by_trust_ratio(trust_clip=trust_clip, units=_or_leaf(units), axis_name=axis_name),
        optax.scale_by_learning_rate(learning_rate),
    )
    return guard(inner, *rules, axis_name=axis_name, units=units)


@published
def lars(
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: ArrayLike = 0.001,
    eps: ArrayLike = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: ArrayLike = 0.9,
    nesterov: bool = False,
    units: Units | None = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train with LARS behind the guard: momentum on steps scaled to the parameters of each leaf.

    Use it in place of ``optax.lars`` for convolutional networks and very large batches; the
    arguments have the same names and defaults.

    .. math::
      u &= (g + \lambda \theta)\, c\, \frac{\|\theta\|}{\|g + \lambda \theta\| + \epsilon}
      \\ m &\leftarrow \beta m - \eta\, u, \qquad \theta \leftarrow \theta + m

    with the ratio 1 if either norm is 0. A rejected step changes nothing. (The paper divides by the
    sum of both norms, :math:`\|g\| + \lambda \|\theta\|`; this is optax's ratio, which is larger
    where the two vectors point apart.)

    Args:
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule. Default 0.
      trust_coefficient: ``c``, > 0. Default 0.001 (the paper's).
      eps: added to the norm of the update, >= 0. Default 0.
      trust_ratio_mask: likewise, which leaves have a trust ratio; usually not biases, whose
        gradient is then used as it is.
      momentum: :math:`\beta`, in [0, 1). Default 0.9.
      nesterov: whether the momentum looks one step ahead.
      units: the parts of a leaf that have a ratio, and are judged by rules, separately. Default
        ``None``: a leaf has one ratio, and rules have their own parts.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.lars(1.0, weight_decay=1e-4)

    Source:
      You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017,
      arXiv:1708.03888.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    check_weight_decay("weight_decay", weight_decay)
    check_number("momentum", momentum, at_least=0.0, below=1.0)
    ratio = scale_by_trust_ratio(
        trust_coefficient=trust_coefficient, eps=eps, units=_or_leaf(units), axis_name=axis_name
    )
    inner = optax.chain(
        decay_weights(weight_decay, weight_decay_mask),
        masked(ratio, trust_ratio_mask),
        optax.scale_by_learning_rate(learning_rate),
        under_guard(trace(momentum, nesterov=nesterov)),
    )
    return guard(inner, *rules, axis_name=axis_name, units=units)


def _or_leaf(units: Units | None) -> Units:
    return "leaf" if units is None else units
