"""The frame shared by all optimizers: a direction, decay, a rate, and the guard around them."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import optax

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_rate
from gradstable._src.core.shared_docs import completed
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Mask
from gradstable._src.core.weight_decay import check_weight_decay, decay_weights
from gradstable._src.guard import guard
from gradstable._src.moments.engine import under_guard
from gradstable._src.rules.protocol import Rule, check_rules

Factory = TypeVar("Factory", bound=Callable[..., optax.GradientTransformationExtraArgs])

_LEAVES = (
    "tree of bools, or a function from parameters to one: which leaves to decay. Default: all."
)
_ARGUMENTS = {
    "learning_rate": r":math:`\eta`, a number >= 0 or a schedule from step to rate.",
    "b1": "decay of the first moment, in [0, 1).",
    "b2": "decay of the second moment, in [0, 1).",
    "eps": "added outside the root, in units of the gradient, >= 0.",
    "eps_root": "added inside the root, >= 0.",
    "mu_dtype": "dtype in which the first moment is stored. Default float32.",
    "nu_dtype": "dtype in which the second moment is stored. Default float32.",
    "nesterov": "whether the first moment looks one step ahead.",
    "weight_decay": r":math:`\lambda`, a number >= 0 or a schedule, times the learning rate.",
    "mask": _LEAVES,
    "weight_decay_mask": _LEAVES,
    "rules": "the rules by which the guard decides. Default: ``gs.rules.log_mad()``.",
    "axis_name": "as for ``gs.guard``.",
}
_RETURNS = """\
  A ``GradientTransformationExtraArgs`` with the state of ``gs.guard``; updates have the
  structure and the dtypes of the gradients. ``update`` needs ``params`` for weight decay.
"""
_RAISES = "  ValueError: if a hyper-parameter is out of its range.\n"


def published(factory: Factory) -> Factory:
    """Make an optimizer print as its call, and complete its docstring with the shared parts."""
    factory.__doc__ = completed(factory, arguments=_ARGUMENTS, Returns=_RETURNS, Raises=_RAISES)
    return shown(factory)


@published
def recipe(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Mask = None,
    after: Sequence[optax.GradientTransformation] = (),
    rules: Sequence[Rule] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Make a guarded optimizer from a direction: add decay, a learning rate, and the guard.

    Use it for an estimator of ``gs.moments`` that has no named optimizer. Named optimizers such as
    ``gs.adamw`` are built with it.

    .. math:: \theta \leftarrow \theta - \eta\, (u + \lambda \theta)

    with the direction :math:`u`. A rejected step changes nothing: there is no decay, and the
    schedule does not advance.

    Args:
      direction: an estimator, or a chain, that turns gradients into a direction of ascent. Behind
        the guard, an estimator does not check for unsound entries again.
      weight_decay: :math:`\lambda`, a number >= 0 or a schedule, times the learning rate. Any
        number, even 0, gives the same state. Default ``None``: no decay link at all.
      after: transforms that follow the learning rate, such as ``gs.rate.cap_trust()``.

    Raises:
      ValueError: if the learning rate or the weight decay is out of its range.

    Example:
      >>> import gradstable as gs
      >>> tx = gs.recipe(gs.moments.scale_by_laprop(b2=0.95), 3e-4, weight_decay=0.1)

    Source:
      Ours.
    """
    check_rate("learning_rate", learning_rate)
    check_rules(rules)
    links = [under_guard(direction)]
    if weight_decay is not None:
        check_weight_decay("weight_decay", weight_decay)
        links.append(decay_weights(weight_decay, mask))
    links += [optax.scale_by_learning_rate(learning_rate), *map(under_guard, after)]
    return guard(optax.chain(*links), *rules, axis_name=axis_name)


def made_of(estimator: Callable[..., optax.GradientTransformation]) -> Callable[[Factory], Factory]:
    """Make an optimizer from a signature: ``recipe`` around an estimator.

    Arguments that the estimator knows go to it, the rest to ``recipe``. The decorated function has
    a signature and a docstring, but no body.
    """
    theirs = inspect.signature(estimator).parameters.keys()

    def decorate(declared: Factory) -> Factory:
        signature = inspect.signature(declared)

        @functools.wraps(declared)
        def make(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
            declared(*args, **kwargs)  # raises for an unknown argument, by name
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            if "weight_decay" in given and signature.parameters["weight_decay"].default is not None:
                check_weight_decay("weight_decay", given["weight_decay"])
            own = {name: given[name] for name in theirs & given.keys()}
            rest = {
                "mask" if name == "weight_decay_mask" else name: value
                for name, value in given.items()
                if name not in own or name == "axis_name"
            }
            return recipe(estimator(**own), **rest)

        return published(cast("Factory", make))

    return decorate
