"""A logarithm of 0 behind a mask: the loss is fine, and its gradient is NaN.

Padding has no count, so that its expected count is 0. ``jnp.where`` hides its logarithm from the
loss; the derivative of the logarithm still gets there, as 0 divided by 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradstable as gs

COUNTS = jnp.asarray([[4.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 5.0, 2.0], [2.0, 2.0, 0.0]])
LENGTHS = jnp.asarray([3, 2, 3, 3])


def expected(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    counts, lengths = batch
    mask = jnp.arange(counts.shape[1]) < lengths[:, None]
    return mask * (counts + 1.0) * params["rate"], mask


def loss_fn(params: Any, batch: Any) -> jax.Array:
    mean, mask = expected(params, batch)
    log_mean = jnp.where(mask, jnp.log(mean), 0.0)
    return jnp.mean(jnp.sum(mean - batch[0] * log_mean, axis=1))


def fixed(params: Any, batch: Any) -> jax.Array:
    mean, mask = expected(params, batch)
    log_mean = jnp.log(jnp.where(mask, mean, 1.0))  # the mask comes first
    return jnp.mean(jnp.sum(mean - batch[0] * log_mean, axis=1))


def main() -> None:
    params = {"rate": jnp.asarray([1.0, 0.5, 0.25])}
    print(gs.autopsy(loss_fn, params, (COUNTS, LENGTHS)))
    repaired = gs.autopsy(fixed, params, (COUNTS, LENGTHS))
    print("Fixed:", str(repaired).splitlines()[0])


if __name__ == "__main__":
    main()
