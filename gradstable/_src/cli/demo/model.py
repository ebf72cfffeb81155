"""The network: a small convolutional one, as a Flax user would write it."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

CLASSES = 10
_WIDTH = 48
_HIDDEN = 128
_DROPOUT = 0.2
# Smoothed labels keep the loss, and therefore the gradient norm, away from zero.
_SMOOTHING = 0.1


class DigitsNet(nnx.Module):
    """Two convolutions and two dense layers for images of 8 by 8 pixels.

    It deliberately has no batch normalization, whose running statistics change in the forward pass,
    where no optimizer can keep a NaN out of them.
    """

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1: nnx.Conv = nnx.Conv(1, _WIDTH, (3, 3), rngs=rngs)
        self.conv2: nnx.Conv = nnx.Conv(_WIDTH, 2 * _WIDTH, (3, 3), rngs=rngs)
        self.dense: nnx.Linear = nnx.Linear(2 * 2 * 2 * _WIDTH, _HIDDEN, rngs=rngs)
        self.head: nnx.Linear = nnx.Linear(_HIDDEN, CLASSES, rngs=rngs)
        self.dropout: nnx.Dropout = nnx.Dropout(_DROPOUT, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return logits ``[batch, CLASSES]`` of images ``[batch, 8, 8, 1]``."""
        x = nnx.max_pool(nnx.relu(self.conv1(image)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = self.dropout(x.reshape(x.shape[0], -1))
        x = self.dropout(nnx.relu(self.dense(x)))
        return self.head(x)


def training_loss(
    model: DigitsNet, image: jax.Array, label: jax.Array, weight: jax.Array
) -> jax.Array:
    """Return the weighted mean of the cross entropy with smoothed labels."""
    target = optax.smooth_labels(jax.nn.one_hot(label, CLASSES), _SMOOTHING)
    return jnp.mean(weight * optax.softmax_cross_entropy(model(image), target))


@nnx.jit
def evaluate(model: DigitsNet, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the plain cross entropy and the accuracy."""
    logits = model(image)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, label))
    return loss, jnp.mean(jnp.argmax(logits, axis=-1) == label)
