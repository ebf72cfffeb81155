"""A normalization that divides by a norm of 0.

A unit of a new layer is dead for one example: all its inputs are negative, and ReLU makes them 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradstable as gs

X = jnp.asarray([[1.0, 2.0], [2.0, -1.0], [-1.0, -2.0], [3.0, 4.0]])


def unit(h: jax.Array) -> jax.Array:
    norm = jnp.sqrt(jnp.sum(h**2, axis=-1, keepdims=True))
    return h / norm


def safe_unit(h: jax.Array) -> jax.Array:
    square = jnp.sum(h**2, axis=-1, keepdims=True)
    return h * jax.lax.rsqrt(square + 1e-6)


def loss_with(normalize: Any) -> Any:
    def loss_fn(params: Any, x: jax.Array) -> jax.Array:
        with jax.named_scope("encoder"):
            h = normalize(jax.nn.relu(x @ params["encoder"]))
        return jnp.mean((h @ params["head"] - 1.0) ** 2)

    return loss_fn


def main() -> None:
    params = {"encoder": jnp.eye(2), "head": jnp.ones(2)}
    print(gs.autopsy(loss_with(unit), params, X))
    repaired = gs.autopsy(loss_with(safe_unit), params, X)
    print("Fixed:", str(repaired).splitlines()[0])


if __name__ == "__main__":
    main()
