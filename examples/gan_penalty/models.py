"""A generator of points in the plane, and a critic that scores them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Generator(nnx.Module):
    """From noise to points."""

    def __init__(self, noise: int, hidden: int, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(noise, hidden, dtype=dtype, rngs=rngs)
        self.second = nnx.Linear(hidden, hidden, dtype=dtype, rngs=rngs)
        self.last = nnx.Linear(hidden, 2, dtype=dtype, rngs=rngs)

    def __call__(self, noise: jax.Array) -> jax.Array:
        """Return float32 points ``[B, 2]`` of noise ``[B, noise]``."""
        x = nnx.relu(self.first(noise))
        return self.last(nnx.relu(self.second(x))).astype(jnp.float32)


class Critic(nnx.Module):
    """From points to scores, high for real ones; twice differentiable, as penalties require."""

    def __init__(self, hidden: int, *, dtype: Any = None, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(2, hidden, dtype=dtype, rngs=rngs)
        self.second = nnx.Linear(hidden, hidden, dtype=dtype, rngs=rngs)
        self.last = nnx.Linear(hidden, 1, dtype=dtype, rngs=rngs)

    def __call__(self, points: jax.Array) -> jax.Array:
        """Return float32 scores ``[B]`` of points ``[B, 2]``."""
        x = nnx.silu(self.first(points))
        return self.last(nnx.silu(self.second(x)))[:, 0].astype(jnp.float32)
