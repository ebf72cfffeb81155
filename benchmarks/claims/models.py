"""The models used to check claims: small, and pure functions of parameters and a key."""

import pydoc_data.topics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike
from sklearn.datasets import load_digits

from benchmarks.small_tasks import last_output, relu_network

Params = Any


class Model(NamedTuple):
    """A learning task."""

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, jax.Array], jax.Array]  # on a batch that a key draws
    held_out: Callable[[Params], jax.Array]


def sines(*, width: int = 50, points: int = 200) -> Model:
    """Return a two-layer network that fits sin x + sin 4x, with all points in one batch."""
    x = jnp.linspace(-jnp.pi, jnp.pi, points)[:, None]
    y = jnp.sin(x) + jnp.sin(4.0 * x)

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 3)
        return {
            "in": jax.random.normal(keys[0], (1, width)),
            "bias": jax.random.normal(keys[1], (width,)),
            "out": jax.random.normal(keys[2], (width, 1)) * width**-0.5,
            "offset": jnp.zeros(1),
        }

    def loss(params: Params, key: jax.Array | None = None) -> jax.Array:
        del key
        hidden = jnp.tanh(x @ params["in"] + params["bias"])
        return jnp.mean((hidden @ params["out"] + params["offset"] - y) ** 2)

    return Model(init, loss, loss)


def digits(*, hidden: int = 32, batch_size: int = 64) -> Model:
    """Return a two-layer network on handwritten digits; smoothed labels give the loss a floor."""
    data: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = jnp.asarray(data.images[order].reshape(-1, 64) / 16.0, jnp.float32)
    labels = optax.smooth_labels(jax.nn.one_hot(jnp.asarray(data.target[order]), 10), 0.1)
    known = 1400

    def init(key: jax.Array) -> Params:
        first, second = jax.random.split(key)
        return {
            "in": jax.random.normal(first, (64, hidden)) * (2.0 / 64) ** 0.5,
            "bias": jnp.zeros(hidden),
            "out": jax.random.normal(second, (hidden, 10)) * hidden**-0.5,
            "offset": jnp.zeros(10),
        }

    def loss_on(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ params["in"] + params["bias"])
        out = hidden @ params["out"] + params["offset"]
        return optax.softmax_cross_entropy(out, y).mean()

    def loss(params: Params, key: jax.Array) -> jax.Array:
        index = jax.random.randint(key, (batch_size,), 0, known)
        return loss_on(params, images[index], labels[index])

    return Model(init, loss, lambda params: loss_on(params, images[known:], labels[known:]))


def adding(*, length: int, radius: float, hidden: int = 32, batch_size: int = 20) -> Model:
    """Return a ReLU network without gates that adds two marked numbers of a sequence."""

    def init(key: jax.Array) -> Params:
        return relu_network(key, hidden=hidden, radius=radius)

    def loss(params: Params, key: jax.Array, size: int = batch_size) -> jax.Array:
        keys = jax.random.split(key, 3)
        values = jax.random.uniform(keys[0], (length, size))
        half = length // 2
        first = jax.random.randint(keys[1], (size,), 0, half)
        second = jax.random.randint(keys[2], (size,), half, length)
        marks = jax.nn.one_hot(first, length, axis=0) + jax.nn.one_hot(second, length, axis=0)
        answers = last_output(params, jnp.stack([values, marks], -1))
        return jnp.mean((answers - jnp.sum(values * marks, axis=0)) ** 2)

    return Model(init, loss, lambda params: loss(params, jax.random.key(99), 256))


def decoder(
    *, qk_norm: ArrayLike = False, z_loss: ArrayLike = 0.0, width: int = 32, layers: int = 2
) -> Model:
    """Return a decoder on the characters of Python's help; the z-loss applies only in training."""
    heads, context, batch_size, vocabulary = 2, 24, 8, 96
    text = "".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    points = np.frombuffer(text[:100_000].encode("utf-32-le"), np.uint32).astype(np.int32)
    codes = jnp.asarray(np.clip(points - 31, 0, vocabulary - 1))
    known = 90_000

    def init(key: jax.Array) -> Params:
        keys = iter(jax.random.split(key, 2 + 4 * layers))

        def dense(rows: int, columns: int) -> jax.Array:
            return jax.random.normal(next(keys), (rows, columns)) * rows**-0.5

        return {
            "token": jax.random.normal(next(keys), (vocabulary, width)) * width**-0.5,
            "place": jnp.zeros((context, width)),
            "head": dense(width, vocabulary),
            "norm": jnp.ones(width),
            "blocks": [
                {
                    "qkv": dense(width, 3 * width),
                    "out": dense(width, width),
                    "up": dense(width, 4 * width),
                    "down": dense(4 * width, width),
                    **{f"norm{i}": jnp.ones(width) for i in (1, 2)},
                    **{f"{name}_norm": jnp.ones(width // heads) for name in "qk"},
                }
                for _ in range(layers)
            ],
        }

    def norm(x: jax.Array, gain: jax.Array) -> jax.Array:
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain

    def attend(x: jax.Array, block: Params) -> jax.Array:
        shape = (*x.shape[:-1], heads, width // heads)
        q, k, v = (part.reshape(shape) for part in jnp.split(x @ block["qkv"], 3, -1))
        # Not a branch in Python, so that one program serves both.
        q, k = (
            jnp.where(qk_norm, norm(x, block[f"{name}_norm"]), x)
            for name, x in (("q", q), ("k", k))
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return mixed.reshape(x.shape) @ block["out"]

    def losses(params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = params["token"][tokens[:, :-1]] + params["place"]
        for block in params["blocks"]:
            x = x + attend(norm(x, block["norm1"]), block)
            x = x + jax.nn.gelu(norm(x, block["norm2"]) @ block["up"]) @ block["down"]
        logits = norm(x, params["norm"]) @ params["head"]
        log_z = jax.nn.logsumexp(logits, -1)
        chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
        return jnp.mean(log_z - chosen), jnp.mean(log_z**2)

    def loss(params: Params, key: jax.Array) -> jax.Array:
        starts = jax.random.randint(key, (batch_size,), 0, known - context - 1)
        tokens = codes[starts[:, None] + jnp.arange(context + 1)]
        entropy, square = losses(params, tokens)
        return entropy + z_loss * square

    held = codes[known:][: 64 * (context + 1)].reshape(-1, context + 1)
    return Model(init, loss, lambda params: losses(params, held)[0])
