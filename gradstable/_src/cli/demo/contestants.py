"""Who runs: the same network and data under different protection, and how to read each of them.

Three optimizers go through the storm, and two of them once more without it, for reference.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradstable as gs

_LEARNING_RATE = 3e-3
_MAX_NORM = 1.0
_MAX_ERRORS = 5


class Decision(NamedTuple):
    """What an optimizer did with the gradient of one step."""

    rejected: jax.Array  # shape=(), dtype=jnp.bool_
    scale: jax.Array  # shape=(), dtype=jnp.float32, factor on the gradient
    threshold: jax.Array  # shape=(), dtype=jnp.float32, the norm above which it acts
    reason: jax.Array  # shape=(), dtype=jnp.int32, a code of gradstable (0: nothing)
    worst_leaf: jax.Array  # shape=(), dtype=jnp.int32 (-1: not told)


Read = Callable[[Any, jax.Array], Decision]


class Method(NamedTuple):
    """An optimizer, the line that makes it, and how its decisions are read off its state.

    Attributes:
      tx: the optax transform.
      code: the line of code, with ``lr`` for the schedule.
      read: takes optimizer state and gradient norm after an update, gives the decision.
      judges: whether it can reject or clip at all.
    """

    tx: optax.GradientTransformation
    code: str
    read: Read
    judges: bool


class Contestant(NamedTuple):
    """One run of the demo.

    Attributes:
      key: its name in files.
      name: its name in tables and plots.
      method: key of its method.
      storm: whether it gets the faults.
    """

    key: str
    name: str
    method: str
    storm: bool


CONTESTANTS: tuple[Contestant, ...] = (
    Contestant("adamw", "adamw", "adamw", storm=True),
    Contestant("clip_finite", "clip + apply_if_finite", "clip_finite", storm=True),
    Contestant("guard", "guard", "guard", storm=True),
    Contestant("adamw_clean", "adamw, no faults", "adamw", storm=False),
    Contestant("guard_clean", "guard, no faults", "guard", storm=False),
)


def make_methods(steps: int) -> dict[str, Method]:
    """Return the optimizers of a run of so many steps, all with the same AdamW inside."""
    lr = optax.cosine_decay_schedule(_LEARNING_RATE, steps)
    return {
        "adamw": Method(
            tx=optax.adamw(lr), code="optax.adamw(lr)", read=_read_nothing, judges=False
        ),
        "clip_finite": Method(
            tx=optax.apply_if_finite(
                optax.chain(optax.clip_by_global_norm(_MAX_NORM), optax.adamw(lr)),
                max_consecutive_errors=_MAX_ERRORS,
            ),
            code=(
                f"optax.apply_if_finite(optax.chain(optax.clip_by_global_norm({_MAX_NORM}), "
                f"optax.adamw(lr)), max_consecutive_errors={_MAX_ERRORS})"
            ),
            read=_read_clip_finite,
            judges=True,
        ),
        "guard": Method(
            tx=gs.guard(optax.adamw(lr)),
            code="gradstable.guard(optax.adamw(lr))",
            read=_read_guard,
            judges=True,
        ),
    }


def _read_nothing(opt_state: Any, norm: jax.Array) -> Decision:
    del opt_state, norm
    return Decision(
        rejected=jnp.asarray(False),
        scale=jnp.asarray(1.0, jnp.float32),
        threshold=jnp.asarray(jnp.inf, jnp.float32),
        reason=jnp.asarray(0, jnp.int32),
        worst_leaf=jnp.asarray(-1, jnp.int32),
    )


def _read_clip_finite(opt_state: Any, norm: jax.Array) -> Decision:
    # Flax keeps each array of the state in a variable.
    last_finite = opt_state.last_finite.get_value()
    errors_in_a_row = opt_state.notfinite_count.get_value()
    # After its budget of errors in a row it applies the update, whatever is in it.
    rejected = ~last_finite & (errors_in_a_row <= _MAX_ERRORS)
    clip = jnp.where(norm > _MAX_NORM, _MAX_NORM / norm, 1.0)
    return _read_nothing(opt_state, norm)._replace(
        rejected=rejected,
        scale=jnp.where(rejected, 0.0, clip).astype(jnp.float32),
        threshold=jnp.asarray(_MAX_NORM, jnp.float32),
    )


def _read_guard(opt_state: Any, norm: jax.Array) -> Decision:
    del norm  # the guard has measured it itself
    health = gs.health(opt_state)
    return Decision(
        rejected=health.scale == 0.0,
        scale=health.scale,
        threshold=health.threshold,
        reason=health.reason,
        worst_leaf=health.worst_leaf,
    )
