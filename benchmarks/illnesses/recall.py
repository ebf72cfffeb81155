"""A small transformer that recalls pairs from its context, with a tap in each block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradstable as gs
from benchmarks.illnesses.tasks import Batch, Task, cross_entropy

LETTERS, WIDTH, HEADS, HEAD_DIM, LENGTH, BLOCKS = 16, 32, 2, 16, 9, 2


def recall(seed: int, *, qk_norm: bool = False, cap: float | None = None) -> Task:
    """Four keys, each with its value, and one of the keys again: which value belongs to it?

    Args:
      seed: of data and parameters.
      qk_norm: whether queries and keys are normalized.
      cap: a soft cap on the attention logits.
    """

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        keys = np.array([rng.permutation(LETTERS // 2)[:4] for _ in range(64)])
        values = rng.integers(LETTERS // 2, LETTERS, (64, 4))
        asked = np.arange(64), rng.integers(4, size=64)
        pairs = np.stack([keys, values], axis=-1).reshape(64, 8)
        x = np.concatenate([pairs, keys[asked][:, None]], axis=1)
        return {"x": x, "label": values[asked], "weight": np.ones(64, np.float32)}

    def loss(params: Any, batch: Batch) -> jax.Array:
        h = params["embedding"][batch["x"]] + params["position"]
        for place, block in enumerate(params["blocks"]):
            z = normed(h)
            q, k, v = (
                jnp.einsum("btd,dhe->bthe", z, block[name]) for name in ("query", "key", "value")
            )
            if qk_norm:
                q, k = normed(q), normed(k)
            logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) / HEAD_DIM**0.5
            if cap is not None:
                logits = gs.losses.soft_cap(logits, cap=cap)
            logits = gs.taps.attention_logits(f"blocks/{place}", logits)
            past = np.tril(np.ones((LENGTH, LENGTH), bool))
            weights = jax.nn.softmax(jnp.where(past, logits, -jnp.inf))
            h = h + jnp.einsum("bhqk,bkhe,hed->bqd", weights, v, block["out"])
            h = h + jax.nn.gelu(normed(h) @ block["up"]) @ block["down"]
        return cross_entropy(normed(h[:, -1]) @ params["head"], batch)

    return Task(_params(seed), loss, batch)


def normed(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _params(seed: int) -> Any:
    keys = iter(jax.random.split(jax.random.key(seed), 3 + 6 * BLOCKS))

    def kernel(*shape: int, inputs: int = WIDTH) -> jax.Array:
        return jax.random.normal(next(keys), shape) * inputs**-0.5

    def block() -> dict[str, jax.Array]:
        heads = (WIDTH, HEADS, HEAD_DIM)
        return {
            **{name: kernel(*heads) for name in ("query", "key", "value")},
            "out": kernel(HEADS, HEAD_DIM, WIDTH),
            "up": kernel(WIDTH, 4 * WIDTH),
            "down": kernel(4 * WIDTH, WIDTH, inputs=4 * WIDTH),
        }

    return {
        "embedding": kernel(LETTERS, WIDTH, inputs=1),
        "position": kernel(LENGTH, WIDTH, inputs=1),
        "blocks": [block() for _ in range(BLOCKS)],
        "head": kernel(WIDTH, LETTERS),
    }
