"""Weight decay by a number or a schedule, shared by every optimizer that has it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._src.core.checks import check_number, is_negative
from gradstable._src.core.masked import masked
from gradstable._src.core.numerics import increment, is_zero, wide
from gradstable._src.core.types import Mask

_NO_PARAMS = "weight decay needs the parameters: call update(updates, state, params)"
_SIGN = "Decay shrinks the parameters: pass it as a positive number"


def check_weight_decay(name: str, value: object) -> None:
    """Check a weight decay: a schedule (any callable), or a number >= 0."""
    if not callable(value):
        kind = "a real number, or a schedule from steps to numbers"
        hint = _SIGN if is_negative(value) else ""
        check_number(name, value, at_least=0.0, hint=hint, kind=kind)


def decay_at(weight_decay: optax.ScalarOrSchedule, count: jax.Array) -> float | jax.Array:
    """Return the decay of a step; the first step is 0, as in optax's schedules."""
    return jnp.asarray(weight_decay(count)) if callable(weight_decay) else weight_decay


def decay_weights(
    weight_decay: optax.ScalarOrSchedule, mask: Mask = None
) -> optax.GradientTransformation:
    """Return the link of a chain that adds a fraction of the parameters to the updates.

    It is ``optax.add_decayed_weights`` with three differences. It computes in float32 or wider and
    keeps the dtype of the updates, even for a schedule. A decay of 0 needs no parameters. And the
    error message names what is missing. Its state is that of optax, and does not depend on values:
    empty for a number, even 0, and a counter for a schedule.

    Args:
      weight_decay: a number >= 0 or a schedule, already checked.
      mask: which leaves to decay.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        if not callable(weight_decay) and is_zero(weight_decay):
            return updates, state
        if params is None:
            raise ValueError(_NO_PARAMS)
        if not callable(weight_decay):
            return _add(weight_decay, updates, params), state
        decayed = _add(weight_decay(state.count), updates, params)
        return decayed, state._replace(count=increment(state.count))

    init_fn = optax.add_decayed_weights(weight_decay).init
    link = optax.GradientTransformation(init_fn, update_fn)
    return masked(link, mask)


def _add(decay: ArrayLike, updates: optax.Updates, params: optax.Params) -> optax.Updates:
    def add(u: jax.Array | None, p: Any) -> jax.Array | None:
        if u is None:
            return None
        dtype = wide(u.dtype)
        total = u.astype(dtype) + jnp.asarray(decay, dtype) * jnp.asarray(p).astype(dtype)
        return total.astype(u.dtype)

    return jax.tree.map(add, updates, params, is_leaf=lambda leaf: leaf is None)
