"""A contestant in the gauntlet: an optimizer made from a learning rate schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

Schedule = optax.Schedule


class Contestant(NamedTuple):
    """An optimizer together with its protection.

    Attributes:
      make: function from a schedule (count to learning rate) to a transform. Schedules can be
        traced: the gauntlet runs many rates side by side.
      about: what it is and where it comes from, in one line.
      base: the name of the contestant that it protects, with which it is compared in clean runs;
        its own name if it protects none. Empty: AdamW, if that is chosen too.
      ours: whether it comes from gradstable.
      touched: function from the last state and the gradient norms ``[steps]`` to the number of
        steps it clipped or rejected. ``None``: read with ``gs.health``, and unknown without a guard
        or with more than one.
    """

    make: Callable[[Schedule], optax.GradientTransformation]
    about: str
    base: str
    ours: bool = False
    touched: Callable[[Any, jax.Array], jax.Array] | None = None
