"""Handwritten digits: a convolutional network, and a deep one without normalization."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import calm, cast, cross_entropy, dense, index, stack, weights

_KNOWN, _SMOOTH = 1400, 0.1  # number of training images; uniform share of the labels


def digits_cnn(*, dtype: DTypeLike = jnp.float32, batch_size: int = 32, steps: int = 300) -> Task:
    """Return the task of two convolutions and a dense layer on scikit-learn's 8×8 digits.

    The plainest realistic network. Labels are smoothed by 0.1, which gives the loss its floor of
    0.50. The convolutions are products of patches with kernels: with a kernel for each of many
    runs, XLA would turn them into grouped convolutions, which are slow on a CPU.
    """

    def init(key: jax.Array) -> Params:
        conv1, conv2, out = weights(key, (9, 16), (144, 16), (64, 10), gain=2.0)
        return {
            "conv1": {"kernel": conv1, "bias": jnp.zeros(16)},
            "conv2": {"kernel": conv2, "bias": jnp.zeros(16)},
            "dense": {"kernel": out * 0.5, "bias": jnp.zeros(10)},
        }

    def logits(p: Params, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 8, 1)
        for layer in (p["conv1"], p["conv2"]):
            x = jax.nn.relu(dense(_patches(x), layer))
        return dense(x.reshape(x.shape[0], -1), p["dense"])

    about = "small convolutional network on 8×8 handwritten digits"
    return _on_digits(init, logits, dtype=dtype, batch_size=batch_size, steps=steps, about=about)


def deep_mlp(
    *,
    dtype: DTypeLike = jnp.float32,
    layers: int = 12,
    width: int = 32,
    batch_size: int = 32,
    steps: int = 400,
) -> Task:
    """Return the task of many dense ReLU layers without normalization or shortcuts on the digits.

    Errors in one layer are multiplied by all later ones, the problem that normalization and
    residual connections were invented for. Initial weights are He's (He et al. 2015,
    arXiv:1502.01852), with which signals keep their size on average, but not more than that.
    """

    def init(key: jax.Array) -> Params:
        return stack(key, 64, *[width] * (layers - 1), 10)

    def logits(p: Params, x: jax.Array) -> jax.Array:
        for layer in p[:-1]:
            x = jax.nn.relu(dense(x, layer))
        return dense(x, p[-1])

    about = f"{layers} dense ReLU layers without normalization on handwritten digits"
    return _on_digits(init, logits, dtype=dtype, batch_size=batch_size, steps=steps, about=about)


def _on_digits(
    init: Callable[[jax.Array], Params],
    logits: Callable[[Params, jax.Array], jax.Array],
    *,
    dtype: DTypeLike,
    batch_size: int,
    steps: int,
    about: str,
) -> Task:
    """Return the task of classifying digits."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.data[order] / 16.0, jnp.float32)
    labels = jnp.asarray(np.eye(10)[data.target[order]] * (1 - _SMOOTH) + _SMOOTH / 10, jnp.float32)

    def batch(key: jax.Array) -> Batch:
        which = index(jax.random.uniform(key, (batch_size,)), _KNOWN)
        return images[which], labels[which]

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y = batch
        p, x = cast((params, x * ill.inputs), dtype)
        return cross_entropy(logits(p, x), y * ill.targets)

    held = images[_KNOWN:], labels[_KNOWN:]
    return Task(init, batch, loss, lambda params: loss(params, held, calm()), steps, about)


def _patches(x: jax.Array) -> jax.Array:
    """Return the 3×3 neighborhoods of every second pixel of ``[batch, size, size, channels]``."""
    size = x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    parts = [x[:, i : i + size : 2, j : j + size : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate([part[:, : size // 2, : size // 2] for part in parts], -1)
