"""Two networks for images of 32 by 32 pixels: a small MobileNet, and five convolutions.

Neither has a batch norm. The forward pass writes its running statistics, where no optimizer can
keep a NaN out of them: a guard rejects the step, but the mean and variance that evaluation uses
are broken anyway. A group norm keeps nothing from one batch to the next.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

CLASSES = 10
Name = Literal["mobilenet", "five-conv"]

# Channels and stride of each block at width 1: five blocks, where the published network, designed
# for 224 by 224 pixels, has thirteen.
_STEM = 32
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
_FIVE = (32, 32, 64, 64, 128)
_HIDDEN = 128
# With one or two channels per group, a norm would remove the strength of each channel, and after
# the mean over the image nothing else distinguishes classes.
_GROUP = 16


def channels(count: int, width: float) -> int:
    """Return ``count * width``, rounded to a multiple of eight, at least eight."""
    return max(8, 8 * round(count * width / 8))


def group_norm(features: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Return a group norm with 16 channels per group, or one group if that does not divide."""
    groups = features // _GROUP if features % _GROUP == 0 else 1
    return nnx.GroupNorm(features, num_groups=groups, dtype=dtype, rngs=rngs)


class DepthwiseConv(nnx.Module):
    """A 3 by 3 convolution of each channel separately, as nine shifted products.

    The gradient of a grouped convolution is slow on a CPU: 64 images of 16 by 16 pixels with 16
    channels take 29 ms forward and backward, compared with 3.6 ms this way.
    """

    def __init__(self, features: int, *, stride: int, dtype: Any, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.he_uniform()  # of a fan-in of nine: one channel in
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, 1, features), jnp.float32))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        _, height, width, _ = x.shape
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = jnp.zeros((), self.dtype)
        for i in range(3):
            for j in range(3):
                shifted = padded[:, i : i + height : self.stride, j : j + width : self.stride]
                total = total + shifted * kernel[i, j, 0]
        return total


class Separable(nnx.Module):
    """A depthwise convolution, then a pointwise one; a group norm and a ReLU after each."""

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        stride: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.depthwise = DepthwiseConv(features_in, stride=stride, dtype=dtype, rngs=rngs)
        self.norm1 = group_norm(features_in, dtype=dtype, rngs=rngs)
        self.pointwise = nnx.Conv(
            features_in, features, (1, 1), use_bias=False, dtype=dtype, rngs=rngs
        )
        self.norm2 = group_norm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm1(self.depthwise(x)))
        return nnx.relu(self.norm2(self.pointwise(x)))


class MobileNet(nnx.Module):
    """A stem of stride two, five separable blocks, the mean over the image, and one dense layer."""

    def __init__(self, *, width: float, dtype: Any, rngs: nnx.Rngs) -> None:
        features = channels(_STEM, width)
        self.stem = nnx.Conv(3, features, (3, 3), strides=2, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = group_norm(features, dtype=dtype, rngs=rngs)
        blocks = []
        for count, stride in _BLOCKS:
            blocks.append(
                Separable(features, channels(count, width), stride=stride, dtype=dtype, rngs=rngs)
            )
            features = channels(count, width)
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(features, CLASSES, dtype=dtype, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return float32 logits ``[batch, CLASSES]`` of images ``[batch, 32, 32, 3]``."""
        x = nnx.relu(self.norm(self.stem(image)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2))).astype(jnp.float32)


def halve(x: jax.Array) -> jax.Array:
    """Return the maximum of every two by two pixels.

    It is ``nnx.max_pool(x, (2, 2), (2, 2))``, whose gradient takes five times as long on a CPU.
    """
    batch, height, width, features = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, features).max(axis=(2, 4))


class FiveConv(nnx.Module):
    """Five convolutions with pooling in between, then two dense layers, without normalization."""

    def __init__(self, *, width: float, dtype: Any, rngs: nnx.Rngs) -> None:
        counts = [3] + [channels(count, width) for count in _FIVE]
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
                for i in range(5)
            ]
        )
        self.dense = nnx.Linear(
            4 * 4 * counts[-1],
            channels(_HIDDEN, width),
            kernel_init=nnx.initializers.he_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.head = nnx.Linear(channels(_HIDDEN, width), CLASSES, dtype=dtype, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return float32 logits ``[batch, CLASSES]`` of images ``[batch, 32, 32, 3]``."""
        x = image
        for i, conv in enumerate(self.convs):
            x = nnx.relu(conv(x))
            if i in (1, 3, 4):
                x = halve(x)
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        return self.head(x).astype(jnp.float32)


Classifier = MobileNet | FiveConv


def build(name: Name, *, width: float, dtype: Any, seed: int) -> Classifier:
    """Return a new network whose numbers of channels are multiplied by ``width``."""
    network = MobileNet if name == "mobilenet" else FiveConv
    return network(width=width, dtype=dtype, rngs=nnx.Rngs(seed))
