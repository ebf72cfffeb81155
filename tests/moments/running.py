"""Running an estimator over many steps, compiled once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def directions(tx: optax.GradientTransformation, gradients: Any, state: Any = None) -> np.ndarray:
    """Return the update of every step for gradients ``[steps, ...]``."""
    gradients = jnp.asarray(gradients)
    start = tx.init(gradients[0]) if state is None else state

    def body(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
        u, state = tx.update(g, state)
        return state, u

    _, out = jax.jit(lambda s, g: jax.lax.scan(body, s, g))(start, gradients)
    return np.asarray(out)


def runs(*parts: tuple[float, int]) -> np.ndarray:
    """Return gradients of one parameter, from pairs of a value and how often it comes."""
    return np.concatenate([np.full((times, 1), value, np.float32) for value, times in parts])
