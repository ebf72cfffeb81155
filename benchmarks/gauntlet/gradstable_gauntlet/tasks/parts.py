"""Shared parts of the tasks: casts, initial weights, and losses that let bad targets through."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Disturbance, Params

FLOOR = 0.05  # variance of the noise in the targets, below which no held-out loss can fall


def calm() -> Disturbance:
    """Return the disturbance that changes nothing."""
    return Disturbance(jnp.ones(()), jnp.ones(()))


def cast(tree: Params, dtype: DTypeLike) -> Params:
    """Return a tree in the compute dtype; gradients flow back through the cast."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def weights(key: jax.Array, *shapes: tuple[int, ...], gain: float = 1.0) -> list[jax.Array]:
    """Return random weights ``[inputs, outputs]``; He's for ReLU have a gain of 2.

    They come from a single draw, since every draw of another shape takes half a second to compile.
    """
    sizes = [math.prod(shape) for shape in shapes]
    flat = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return [
        each.reshape(shape) * np.float32((gain / math.prod(shape[:-1])) ** 0.5)
        for each, shape in zip(flat, shapes, strict=True)
    ]


def stack(key: jax.Array, *widths: int, gain: float = 2.0) -> list[Params]:
    """Return the kernels and biases of dense layers between these widths."""
    kernels = weights(key, *pairwise(widths), gain=gain)
    return [{"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])} for kernel in kernels]


def index(uniform: jax.Array, size: int) -> jax.Array:
    """Return random integers below a size from random numbers below 1."""
    return jnp.minimum((uniform * size).astype(jnp.int32), size - 1)


def dense(x: jax.Array, layer: Params) -> jax.Array:
    """Apply a dense layer."""
    return x @ layer["kernel"] + layer["bias"]


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy in float32; targets need not add up to 1, nor be finite."""
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), -1))


def squared_error(output: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean squared error in float32."""
    return jnp.mean((output.astype(jnp.float32) - targets) ** 2)
