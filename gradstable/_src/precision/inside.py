"""A loss scale further inside: transforms around it see gradients that are still scaled."""

from typing import Any

import jax
from jax.typing import ArrayLike

from gradstable._src.core.find import find_all
from gradstable._src.precision.loss_scale import LossScaleState


def unscale_inside(inner_state: Any, unscale: ArrayLike | None = None) -> ArrayLike | None:
    """Return the factor that removes all loss scales from a measurement of a gradient.

    Args:
      inner_state: the state before the update, whose scale the loss was multiplied by.
      unscale: the factor passed by a loss scale further outside, if there is one.
    """
    scales = [state.loss_scale for _, state in find_all(inner_state, LossScaleState)]
    for scale in scales:
        unscale = 1.0 / scale if unscale is None else unscale / scale
    return unscale


def has_loss_scale(inner_state: Any) -> bool:
    """Whether the loss was multiplied for a loss scale further inside."""
    return bool(find_all(inner_state, LossScaleState))


def runs_inner(accept: jax.Array, finite: jax.Array, inner_state: Any) -> jax.Array:
    """Return whether a guard runs the transform inside it: normally, where it accepts.

    A loss scale inside must see overflows too, or it never falls; the guard inside it keeps them
    out of the moments.
    """
    return accept | ~finite if has_loss_scale(inner_state) else accept


def check_one_loss_scale(inner_state: Any, factory: str) -> None:
    """Raise if there are several loss scales: it is unknown which one multiplied the loss."""
    places = [f"opt_state{path}" for path, _ in find_all(inner_state, LossScaleState)]
    if len(places) > 1:
        msg = (
            f"{len(places)} loss scales found inside {factory} ({', '.join(places)}), but there "
            "must be only one: wrap the whole optimizer once, as in "
            f"gradstable.{factory}(gradstable.loss_scale(gradstable.guard(optax.adamw(3e-4))))"
        )
        raise ValueError(msg)
