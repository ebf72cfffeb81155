"""A loss scale further in: what stands around it sees gradients that still have it in them."""

from typing import Any

import jax
from jax.typing import ArrayLike

from gradstable._src.core.find import find_all
from gradstable._src.precision.loss_scale import LossScaleState


def unscale_inside(inner_state: Any, unscale: ArrayLike | None = None) -> ArrayLike | None:
    """Return the factor that takes all loss scales out of what was measured of a gradient.

    Args:
      inner_state: the state before the update, whose scale the loss was multiplied by.
      unscale: the factor that a loss scale further out has passed, if there is one.
    """
    scales = [state.loss_scale for _, state in find_all(inner_state, LossScaleState)]
    for scale in scales:
        unscale = 1.0 / scale if unscale is None else unscale / scale
    return unscale


def has_loss_scale(inner_state: Any) -> bool:
    """Whether gradients are those of a loss that was multiplied for a loss scale further in."""
    return bool(find_all(inner_state, LossScaleState))


def runs_inner(accept: jax.Array, finite: jax.Array, inner_state: Any) -> jax.Array:
    """Return whether a guard runs what is inside: where it accepts.

    A loss scale inside has to hear of overflows too, or it never falls; what judges inside of that
    keeps them out of moments.
    """
    return accept | ~finite if has_loss_scale(inner_state) else accept


def check_one_loss_scale(inner_state: Any, factory: str) -> None:
    """Raise where there are several loss scales: nobody knows which the loss was multiplied by."""
    places = [f"opt_state{path}" for path, _ in find_all(inner_state, LossScaleState)]
    if len(places) > 1:
        msg = (
            f"{len(places)} loss scales found inside of {factory} ({', '.join(places)}), and it "
            "must be one: wrap the whole optimizer once, as in "
            f"gradstable.{factory}(gradstable.loss_scale(gradstable.guard(optax.adamw(3e-4))))"
        )
        raise ValueError(msg)
