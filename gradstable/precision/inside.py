"""A loss scale further in: what stands around it sees gradients that still have it in them."""

from typing import Any

from jax.typing import ArrayLike

from gradstable._core.find import find_all
from gradstable.precision.loss_scale import LossScaleState


def unscale_inside(inner_state: Any, unscale: ArrayLike | None = None) -> ArrayLike | None:
    """Return the factor that takes all loss scales out of what was measured of a gradient.

    Args:
      inner_state: the state before the update, whose scale the loss was multiplied by.
      unscale: the factor that a loss scale further out has passed, if there is one.
    """
    scales = [state.scale for _, state in find_all(inner_state, LossScaleState)]
    for scale in scales:
        unscale = 1.0 / scale if unscale is None else unscale / scale
    return unscale


def has_loss_scale(inner_state: Any) -> bool:
    """Whether gradients are those of a loss that was multiplied for a loss scale further in."""
    return bool(find_all(inner_state, LossScaleState))


def check_loss_scale_outside(inner_state: Any, factory: str) -> None:
    """Raise where what keeps broken gradients out stands around a loss scale.

    The loss scale would hear of no overflow, and so never fall.
    """
    if has_loss_scale(inner_state):
        msg = (
            f"{factory} stands around gradstable.loss_scale and keeps overflows from it, so that "
            "its scale never falls: put the loss scale outside, as in "
            f"gradstable.loss_scale(gradstable.{factory}(...))"
        )
        raise ValueError(msg)


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
