"""The learning tasks of these cases."""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

STEPS = 120
Batch = Mapping[str, Any]


class Task(NamedTuple):
    """A task: initial parameters, a loss of parameters and a batch, and the batch of a step."""

    params: Any
    loss: Callable[[Any, Batch], jax.Array]
    batch: Callable[[int], Batch]


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    data: Any = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int32)


def dense(seed: int, *widths: int, gain: float = 2.0) -> dict[str, dict[str, jax.Array]]:
    """Return the layers of a network, with variance ``gain / inputs``."""
    keys = jax.random.split(jax.random.key(seed), len(widths))
    return {
        f"dense_{place}": {
            "bias": jnp.zeros(pair[1]),
            "kernel": jax.random.normal(keys[place], pair) * (gain / pair[0]) ** 0.5,
        }
        for place, pair in enumerate(pairwise(widths))
    }


def forward(params: Any, x: jax.Array, act: Callable[[jax.Array], jax.Array]) -> jax.Array:
    for place, layer in enumerate(params.values()):
        x = (act(x) if place else x) @ layer["kernel"] + layer["bias"]
    return x


def cross_entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return jnp.mean(losses.astype(jnp.float32) * batch["weight"])


def digits(seed: int, *, size: int = 64, widths: tuple[int, ...] = (32,), **init: float) -> Task:
    """Handwritten digits with some noise, and one label in twenty wrong."""

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        x, y = images()
        rows = rng.integers(len(y), size=size)
        wrong = rng.random(size) < 0.05
        noise = 0.2 * rng.standard_normal((size, x.shape[1]))
        return {
            "x": (x[rows] + noise).astype(np.float32),
            "label": np.where(wrong, rng.integers(10, size=size), y[rows]),
            "weight": np.ones(size, np.float32),
        }

    def loss(params: Any, batch: Batch) -> jax.Array:
        return cross_entropy(forward(params, batch["x"], jax.nn.relu), batch)

    return Task(dense(seed, 64, *widths, 10, **init), loss, batch)


def sine(seed: int, *, noise: float = 0.0, size: int | None = None) -> Task:
    """Fit a sine in four dimensions; without ``size`` the 64 points are always the same."""

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step if size else 0])
        x = rng.standard_normal((size or 64, 4)).astype(np.float32)
        y = np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2] + noise * rng.standard_normal((len(x), 1))
        return {"x": x, "y": y.astype(np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        return jnp.mean((forward(params, batch["x"], jnp.tanh) - batch["y"]) ** 2)

    return Task(dense(seed, 4, 24, 1, gain=1.0), loss, batch)


def language(seed: int) -> Task:
    """Text from a random grammar: each of 16 letters depends on the previous two."""
    rng = np.random.default_rng([seed, 0])
    table = rng.dirichlet(np.full(16, 0.2), size=(16, 16))

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        x = rng.integers(16, size=(64, 2))
        label = [rng.choice(16, p=table[a, b]) for a, b in x]
        return {"x": x, "label": np.array(label), "weight": np.ones(64, np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        letters = params["embedding"][batch["x"]].reshape(-1, 16)
        return cross_entropy(forward(params["layers"], letters, jax.nn.gelu), batch)

    embedding = 0.5 * jax.random.normal(jax.random.key(seed + 1), (16, 8))
    return Task({"embedding": embedding, "layers": dense(seed, 16, 32, 16)}, loss, batch)


def line(seed: int, *, noise: float = 0.0) -> Task:
    """Fit a line in four dimensions, from zero; the 64 points are always the same."""
    rng = np.random.default_rng([seed, 0])
    x = rng.standard_normal((64, 4)).astype(np.float32)
    y = x @ np.array([1.0, -1.0, 0.5, 0.5], np.float32)
    data = {"x": x, "y": y + noise * rng.standard_normal(64).astype(np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        return jnp.mean((batch["x"] @ params["slope"] + params["bias"] - batch["y"]) ** 2)

    return Task({"bias": jnp.zeros(()), "slope": jnp.zeros(4)}, loss, lambda _: data)


def coins(seed: int) -> Task:
    """Logistic regression from zero, on mostly random labels."""
    slope = np.random.default_rng([seed, 0]).standard_normal(16) / 4

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        x = rng.standard_normal((256, 16)).astype(np.float32)
        heads = rng.random(256) < 1 / (1 + np.exp(-x @ slope))
        return {"x": x, "y": heads.astype(np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits = batch["x"] @ params["kernel"] + params["bias"]
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, batch["y"]))

    return Task({"bias": jnp.zeros(()), "kernel": jnp.zeros(16)}, loss, batch)


def density(seed: int) -> Task:
    """Fit eight normal distributions by maximum likelihood; the loss ends up negative."""
    center = np.random.default_rng([seed, 0]).standard_normal(8)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        return {"x": (center + 0.1 * rng.standard_normal((64, 8))).astype(np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        error = (batch["x"] - params["mean"]) * jnp.exp(-params["log_std"])
        return jnp.mean(jnp.sum(error**2 / 2 + params["log_std"], axis=1))

    return Task({"log_std": jnp.zeros(8), "mean": jnp.zeros(8)}, loss, batch)
