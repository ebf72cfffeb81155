"""The network."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

CLASSES = 10


class MLP(nn.Module):
    """Two hidden layers with dropout: from ``[n, 64]`` to float32 logits ``[n, 10]``."""

    hidden: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for _ in range(2):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(CLASSES, dtype=self.dtype)(x).astype(jnp.float32)
