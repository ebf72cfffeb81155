"""Whether the last call made a step, if it takes several calls to make one."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.find import find_all
from gradstable._src.recovery.accumulate import AccumulateState

_GATHERING: Any = (AccumulateState, optax.MultiStepsState)


def has_updated(opt_state: object) -> jax.Array:
    """Return whether the last call of ``update`` made a step of the inner optimizer.

    Use it with ``gs.accumulate`` for anything that belongs to steps and not to micro-batches: a
    log, an average of the parameters, a checkpoint. It is ``MultiSteps.has_updated`` of optax, as a
    function of the state. A group without any sound micro-batch makes no step.

    Args:
      opt_state: a state with a ``gs.accumulate`` (or an ``optax.MultiSteps``) anywhere in it, or
        an ``nnx.Optimizer`` or a ``TrainState``. If one is inside another, both must have stepped;
        if several are side by side, one is enough.

    Returns:
      A bool scalar, on device, inside ``jit`` and outside.

    Raises:
      ValueError: if nothing in the state accumulates.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.accumulate(gs.guard(optax.sgd(0.1)), 2)
      >>> state = tx.init(jnp.ones(2))
      >>> for _ in range(4):
      ...     _, state = tx.update(jnp.ones(2), state)
      ...     print(bool(gs.has_updated(state)))
      False
      True
      False
      True

    Source:
      Our own; the name is that of ``optax.MultiSteps.has_updated``.
    """
    found = _updated(opt_state)
    if found is None:
        msg = (
            "nothing in this optimizer state accumulates micro-batches: wrap your optimizer, as in "
            "gradstable.accumulate(gradstable.guard(optax.adamw(3e-4)), 8), and pass its state"
        )
        raise ValueError(msg)
    return found


def _updated(node: Any) -> jax.Array | None:
    """Return whether an accumulation below has stepped; ``None`` if there is none."""
    parts = [state for _, state in find_all(node, _GATHERING)]
    if not parts:
        return None
    return jnp.any(jnp.stack([_of(state) for state in parts]), axis=0)


def _of(state: Any) -> jax.Array:
    if isinstance(state, AccumulateState):
        here, inner = state.updated, state.wrapped_state
    else:
        here = (state.mini_step == 0) & (state.gradient_step > 0)
        inner = state.inner_opt_state
    below = _updated(inner)
    return jnp.asarray(here if below is None else here & below)
