"""The two optimizers that every example compares."""

from typing import Literal

import optax

import gradstable as gs

Name = Literal["bare", "ours"]


def bare(schedule: optax.Schedule, *, weight_decay: float) -> optax.GradientTransformation:
    """Return what most people use, with its defaults."""
    return optax.adamw(schedule, weight_decay=weight_decay)


def ours(
    schedule: optax.Schedule, *, peak: float, weight_decay: float
) -> optax.GradientTransformation:
    """Return the gradstable counterpart, the same for all faults and all examples.

    The limit keeps the rate from exceeding the intended maximum, and from jumping. ``stable_adamw``
    rejects broken gradients, caps steps, and forgets large gradients in 20 steps (its ``b2`` is
    0.95; that of ``optax.adamw`` is 0.999, which remembers them for 1000).
    """
    limited = gs.rate.limit_schedule(
        schedule, min_value=peak * 1e-4, max_value=peak, max_growth=1.5
    )
    return gs.stable_adamw(limited, weight_decay=weight_decay)


def contestant(
    name: Name, schedule: optax.Schedule, *, peak: float, weight_decay: float
) -> optax.GradientTransformation:
    """Return one of the two contestants.

    Args:
      name: which one.
      schedule: from step to learning rate, including any injected fault.
      peak: the highest intended rate, which ours does not exceed.
      weight_decay: decoupled, times the learning rate.
    """
    if name == "bare":
        return bare(schedule, weight_decay=weight_decay)
    return ours(schedule, peak=peak, weight_decay=weight_decay)
