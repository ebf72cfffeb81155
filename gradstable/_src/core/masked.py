"""Links of a chain for some leaves only, in models that contain more than arrays."""

from typing import Any

import optax

from gradstable._src.core.equations import as_arrays, with_gradient
from gradstable._src.core.types import Mask


def masked(link: optax.GradientTransformation, mask: Mask) -> optax.GradientTransformation:
    """Return a link for the leaves that a mask chooses; ``None`` chooses all.

    It is ``optax.masked``, except that a function or a string in a model is not a parameter, and
    that a mask function receives arrays in place of Python numbers.
    """
    if mask is None:
        return link
    chosen = optax.masked(link, mask)

    def init_fn(params: optax.Params) -> Any:
        return chosen.init(as_arrays(params))

    return of_arrays(chosen)._replace(init=init_fn)


def of_arrays(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform that never sees the non-arrays among the parameters.

    ``optax.masked`` and ``optax.partition`` fail on them.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        known = None if params is None else with_gradient(params, updates)
        return tx.update(updates, state, known, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update_fn)
