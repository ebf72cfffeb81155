"""A small detector: convolutions, then two heads on the flattened map."""

import jax
import jax.numpy as jnp
from flax import nnx

CLASSES = 10
_CHANNELS = (16, 32, 48)
_HIDDEN = 96


def halve(x: jax.Array) -> jax.Array:
    """Return the maximum of every two by two pixels.

    It is ``nnx.max_pool(x, (2, 2), (2, 2))``, whose gradient takes five times as long on a CPU.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


class Detector(nnx.Module):
    """Predicts which digit is on a canvas of 32 by 32 pixels, and where.

    The last map keeps its 4 by 4 positions: their mean would preserve what is there but not where.
    """

    def __init__(self, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs) -> None:
        counts = (1, *_CHANNELS)
        self.convs = nnx.List(
            [
                nnx.Conv(
                    counts[i],
                    counts[i + 1],
                    (3, 3),
                    kernel_init=nnx.initializers.he_uniform(),
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(len(_CHANNELS))
            ]
        )
        self.dense = nnx.Linear(
            4 * 4 * counts[-1],
            _HIDDEN,
            kernel_init=nnx.initializers.he_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.label = nnx.Linear(_HIDDEN, CLASSES, dtype=dtype, rngs=rngs)
        self.box = nnx.Linear(_HIDDEN, 4, dtype=dtype, rngs=rngs)

    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return logits ``[batch, CLASSES]`` and boxes ``[batch, 4]`` of ``[batch, 32, 32, 1]``.

        A box is ``(cx, cy, w, h)`` as fractions of the canvas, each between 0 and 1.
        """
        x = image
        for conv in self.convs:
            x = halve(nnx.relu(conv(x)))
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        # The heads compute in float32, whatever dtype the layers before them use.
        logits, box = self.label(x).astype(jnp.float32), self.box(x).astype(jnp.float32)
        return logits, jax.nn.sigmoid(box)
