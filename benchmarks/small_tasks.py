"""Small real models in plain JAX, with their data, for whole training runs in one ``jit``."""

import pydoc_data.topics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import DTypeLike
from sklearn.datasets import load_digits

Params = Any


class Task(NamedTuple):
    """A learning task."""

    init: Callable[[jax.Array], Params]  # from a key
    batch: Callable[[jax.Array], Any]  # from a key
    loss: Callable[[Params, Any], jax.Array]  # of a batch
    held_out: Callable[[Params], jax.Array]  # the loss on held-out data
    accuracy: Callable[[Params], jax.Array] | None = None


def digits_cnn(*, dtype: DTypeLike = jnp.float32, batch_size: int = 64) -> Task:
    """Return two convolutions and a dense layer on handwritten digits, computed in a dtype."""
    data: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.images[order, :, :, None] / 16.0, jnp.float32)
    labels = jnp.asarray(data.target[order])
    known = 1400

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)

        def he(key: jax.Array, *shape: int) -> jax.Array:
            return jax.random.normal(key, shape) * np.sqrt(2.0 / np.prod(shape[:-1]))

        return {
            "conv1": {"kernel": he(keys[0], 3, 3, 1, 16), "bias": jnp.zeros(16)},
            "conv2": {"kernel": he(keys[1], 3, 3, 16, 16), "bias": jnp.zeros(16)},
            "dense": {"kernel": he(keys[2], 64, 10) * 0.5, "bias": jnp.zeros(10)},
        }

    def logits(params: Params, x: jax.Array) -> jax.Array:
        p, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
        for layer in (p["conv1"], p["conv2"]):
            x = lax.conv_general_dilated(
                x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["bias"])
        flat = x.reshape(x.shape[0], -1)
        return flat @ p["dense"]["kernel"] + p["dense"]["bias"]

    def loss(params: Params, batch: Any) -> jax.Array:
        x, y = batch
        out = logits(params, x).astype(jnp.float32)
        return optax.softmax_cross_entropy(
            out, optax.smooth_labels(jax.nn.one_hot(y, 10), 0.1)
        ).mean()

    def batch(key: jax.Array) -> Any:
        index = jax.random.randint(key, (batch_size,), 0, known)
        return images[index], labels[index]

    def accuracy(params: Params) -> jax.Array:
        return jnp.mean(jnp.argmax(logits(params, images[known:]), -1) == labels[known:])

    held = (images[known:], labels[known:])
    return Task(init, batch, loss, lambda params: loss(params, held), accuracy)


def adding_rnn(*, length: int = 20, hidden: int = 32, radius: float = 1.5) -> Task:
    """Return a ReLU network without gates that adds two marked numbers (Pascanu et al. 2013)."""

    def init(key: jax.Array) -> Params:
        return relu_network(key, hidden=hidden, radius=radius)

    def batch(key: jax.Array, size: int = 64) -> Any:
        keys = jax.random.split(key, 3)
        values = jax.random.uniform(keys[0], (size, length))
        half = length // 2
        first = jax.random.randint(keys[1], (size,), 0, half)
        second = jax.random.randint(keys[2], (size,), half, length)
        marks = jax.nn.one_hot(first, length) + jax.nn.one_hot(second, length)
        return jnp.stack([values, marks], -1), jnp.sum(values * marks, axis=1)

    def loss(params: Params, batch: Any) -> jax.Array:
        x, y = batch
        return jnp.mean((last_output(params, x.swapaxes(0, 1)) - y) ** 2)

    held = batch(jax.random.key(99), 1024)
    return Task(init, batch, loss, lambda params: loss(params, held))


def relu_network(key: jax.Array, *, hidden: int, radius: float) -> Params:
    """Return a recurrent network without gates whose matrix has this spectral radius."""
    keys = jax.random.split(key, 3)
    recurrent = np.array(jax.random.normal(keys[0], (hidden, hidden)))
    recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
    return {
        "recurrent": jnp.asarray(recurrent, jnp.float32),
        "input": jax.random.normal(keys[1], (2, hidden)) * 0.1,
        "bias": jnp.zeros(hidden),
        "output": jax.random.normal(keys[2], (hidden,)) * 0.1,
        "offset": jnp.zeros(()),
    }


def last_output(params: Params, x: jax.Array) -> jax.Array:
    """Return the output of such a network after the last of ``[time, batch, 2]``."""

    def step(state: jax.Array, now: jax.Array) -> tuple[jax.Array, None]:
        moved = state @ params["recurrent"] + now @ params["input"] + params["bias"]
        return jax.nn.relu(moved), None

    start = jnp.zeros((x.shape[1], params["bias"].size))
    state, _ = lax.scan(step, start, x)
    return state @ params["output"] + params["offset"]


def decoder_lm(*, width: int = 32, layers: int = 1, context: int = 32, heads: int = 4) -> Task:
    """Return a pre-norm decoder on the characters of Python's help."""
    vocabulary = 96
    text = "".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    codes = jnp.asarray([min(max(ord(c) - 31, 0), vocabulary - 1) for c in text[:200_000]])
    known = 180_000

    def init(key: jax.Array) -> Params:
        keys = iter(jax.random.split(key, 3 + 4 * layers))

        def dense(rows: int, columns: int) -> jax.Array:
            return jax.random.normal(next(keys), (rows, columns)) * rows**-0.5

        return {
            "token": jax.random.normal(next(keys), (vocabulary, width)) * 0.02,
            "place": jax.random.normal(next(keys), (context, width)) * 0.02,
            "head": dense(width, vocabulary),
            "norm": jnp.ones(width),
            "blocks": [
                {
                    "qkv": dense(width, 3 * width),
                    "out": dense(width, width),
                    "up": dense(width, 4 * width),
                    "down": dense(4 * width, width),
                    "norm1": jnp.ones(width),
                    "norm2": jnp.ones(width),
                }
                for _ in range(layers)
            ],
        }

    def norm(x: jax.Array, gain: jax.Array) -> jax.Array:
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain

    def attend(x: jax.Array, block: Params) -> jax.Array:
        q, k, v = (
            part.reshape(*part.shape[:-1], heads, width // heads)
            for part in jnp.split(x @ block["qkv"], 3, -1)
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return mixed.reshape(x.shape) @ block["out"]

    def logits(params: Params, tokens: jax.Array) -> jax.Array:
        x = params["token"][tokens] + params["place"]
        for block in params["blocks"]:
            x = x + attend(norm(x, block["norm1"]), block)
            x = x + jax.nn.gelu(norm(x, block["norm2"]) @ block["up"]) @ block["down"]
        return norm(x, params["norm"]) @ params["head"]

    def loss(params: Params, batch: Any) -> jax.Array:
        out = logits(params, batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(out, batch[:, 1:]).mean()

    def batch(key: jax.Array) -> jax.Array:
        starts = jax.random.randint(key, (16,), 0, known - context - 1)
        return jax.vmap(lambda at: lax.dynamic_slice(codes, (at,), (context + 1,)))(starts)

    rest = codes[known:]
    held = rest[: rest.size // (context + 1) * (context + 1)].reshape(-1, context + 1)
    return Task(init, batch, loss, lambda params: loss(params, held))
