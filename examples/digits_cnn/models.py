"""The network and its loss."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike

CLASSES = 10


class DigitsCNN(nnx.Module):
    """Two convolutions, two dense layers, and dropout before each of the latter.

    It has no batch normalization, because the running statistics change in the forward pass, where
    no optimizer can keep a NaN out of them.
    """

    def __init__(self, width: int, *, dropout: float, dtype: Any, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, width, (3, 3), dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(width, 2 * width, (3, 3), dtype=dtype, rngs=rngs)
        self.hidden = nnx.Linear(8 * width, 4 * width, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(4 * width, CLASSES, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return float32 logits ``[n, 10]`` of images ``[n, 8, 8, 1]``."""
        x = nnx.max_pool(nnx.relu(self.conv1(image)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = self.dropout(x.reshape(x.shape[0], -1))
        x = self.dropout(nnx.relu(self.hidden(x)))
        return self.head(x).astype(jnp.float32)


def penalty(model: nnx.Module, *, l1: float, l2: float) -> jax.Array:
    """Return the L1 and L2 penalties on all matrices; biases are exempt."""
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    weights = [leaf for leaf in leaves if leaf.ndim >= 2]
    absolute = sum(jnp.sum(jnp.abs(w)) for w in weights)
    squared = sum(jnp.sum(jnp.square(w)) for w in weights)
    return jnp.asarray(l1 * absolute + 0.5 * l2 * squared)


def cross_entropy(model: DigitsCNN, image: ArrayLike, label: ArrayLike) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    logits = model(jnp.asarray(image))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(label)))
