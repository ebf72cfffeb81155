"""A softmax by hand in float16, without the largest logit taken out.

A logit of 12 has an exponential of 162,755, and the largest float16 is 65,504.
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradstable as gs

X = jnp.asarray([[1.0, 2.0], [3.0, 1.0], [0.0, 12.0], [2.0, 2.0]])
LABELS = jnp.asarray([0, 1, 1, 0])


def loss_fn(params: Any, batch: Any) -> jax.Array:
    x, labels = batch
    logits = (x @ params["w"]).astype(jnp.float16)
    weights = jnp.exp(logits)
    probs = weights / weights.sum(axis=1, keepdims=True)
    return -jnp.mean(jnp.log(probs[jnp.arange(len(labels)), labels].astype(jnp.float32)))


def fixed(params: Any, batch: Any) -> jax.Array:
    x, labels = batch
    logits = (x @ params["w"]).astype(jnp.float16)
    return jnp.mean(gs.losses.softmax_cross_entropy(logits, labels))  # in float32


def main() -> None:
    params = {"w": jnp.eye(2)}
    print(gs.autopsy(loss_fn, params, (X, LABELS)))
    repaired = gs.autopsy(fixed, params, (X, LABELS))
    print("Fixed:", str(repaired).splitlines()[0])


if __name__ == "__main__":
    main()
