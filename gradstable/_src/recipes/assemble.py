"""What all recipes have in common: decay, rate, and the guard around them."""

from typing import Any

import optax

from gradstable._src.core.checks import check_rate
from gradstable._src.core.layout import AxisName
from gradstable._src.core.types import Mask
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.guard import guard
from gradstable._src.moments.engine import under_guard
from gradstable._src.rules.protocol import Rule, check_rules

# For a recipe that has no such argument.
ABSENT: Any = object()


def assemble(
    direction: optax.GradientTransformation,
    *after: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule = ABSENT,
    mask: Mask = None,
    rules: tuple[Rule, ...] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """Return a guarded optimizer that goes along ``direction``.

    Args:
      direction: an estimator, or a chain, that turns gradients into an ascent direction. An
        estimator is freed from looking for unsound entries; in a chain, do it by ``under_guard``.
      *after: what follows the learning rate, such as a cap on the step.
      learning_rate: a number >= 0 or a schedule.
      weight_decay: decoupled decay, times the learning rate, a number >= 0 or a schedule. All
        numbers, 0 included, make the same state; ``ABSENT`` makes no such link.
      mask: which leaves to decay.
      rules: what the guard decides by; none: the default rule.
      axis_name: as for ``guard``.

    Raises:
      ValueError: if the learning rate or the weight decay is out of its range.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    links = [under_guard(direction)]
    if weight_decay is not ABSENT:
        check_weight_decay("weight_decay", weight_decay)
        links.append(decay_weights(weight_decay, mask))
    links += [optax.scale_by_learning_rate(learning_rate), *map(under_guard, after)]
    return guard(optax.chain(*links), *rules, axis_name=axis_name)
