"""The network and its loss."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike


class MLP(nnx.Module):
    """One hidden layer: 20 features, 50 units and 10 classes make 1560 parameters."""

    def __init__(
        self, features: int, hidden: int, classes: int, *, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        self.hidden = nnx.Linear(features, hidden, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(hidden, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return float32 logits ``[n, classes]`` of rows ``[n, features]``."""
        return self.head(nnx.relu(self.hidden(x))).astype(jnp.float32)


def cross_entropy(model: MLP, x: ArrayLike, label: ArrayLike) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    logits = model(jnp.asarray(x))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(label)))
