"""Who runs the gauntlet: an optimizer made from a schedule of learning rates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

Schedule = optax.Schedule


class Contestant(NamedTuple):
    """An optimizer with whatever protects it.

    Attributes:
      make: from a schedule (count to learning rate) to a transform. Schedules may be traced: the
        gauntlet runs many rates at once.
      about: what it is and where it is from, in one line.
      base: the name of the contestant that it protects, which is what it is held against on clean
        runs; its own name where it protects none.
      ours: whether it is from this package.
      touched: from the last state and the norms of the gradients ``[steps]`` to how many steps it
        clipped or rejected. ``None``: read by ``gs.health``, and unknown without a guard or with
        more than one.
    """

    make: Callable[[Schedule], optax.GradientTransformation]
    about: str
    base: str
    ours: bool = False
    touched: Callable[[Any, jax.Array], jax.Array] | None = None
