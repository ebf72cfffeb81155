"""Have XLA read what is measured before it is overwritten in place."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp


def after(number: jax.Array | None, updates: Any) -> Any:
    """Return updates that cannot be computed before a norm is, and are otherwise the same.

    A training step writes new parameters over the old ones. Where nothing orders the two, XLA
    copies the old ones before it reads a few of them: 2 words a parameter, measured. A norm is
    never -1, but XLA cannot know. Outside of ``jit`` nothing is written in place.
    """
    if not isinstance(number, jax.core.Tracer):
        return updates
    never = number == -1.0
    return jax.tree.map(lambda leaf: jnp.where(never, jnp.zeros_like(leaf), leaf), updates)
