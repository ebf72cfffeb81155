"""Small real runs of two tasks, recorded through the public API."""

from collections.abc import Collection
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from gradstable.telemetry import Run, read_run

STEPS = 600
# One batch in ten, at random.
MINORITY = np.flatnonzero(np.random.default_rng(0).random(STEPS + 1) < 0.1).tolist()
Params = dict[str, jax.Array]


def train(
    path: Path,
    tx: optax.GradientTransformation,
    *,
    second: Collection[int] = (),
    weight: float = 50.0,
    bad: Collection[int] = (),
    gain: float = 1e3,
) -> Run:
    """Return the run of a linear model.

    Args:
      path: where to record it.
      tx: its optimizer.
      second: the steps that belong to the second task, whose loss has a ``weight``.
      weight: that weight.
      bad: the steps in which the targets are multiplied by ``gain``.
      gain: that factor.
    """
    number = np.arange(1, STEPS + 1)
    tx = gs.record(tx, capacity=STEPS)
    params: Params = {"head_a": jnp.zeros(4), "head_b": jnp.zeros(4)}

    def loss_fn(params: Params, key: jax.Array, is_second: jax.Array, factor: jax.Array):
        x, noise = jax.random.normal(key, (32, 4)), jax.random.normal(key, (32,))
        error = x @ jnp.where(is_second, params["head_b"], params["head_a"]) - factor * (
            x @ jnp.array([1.0, -2.0, 0.5, 0.0]) + 0.5 * noise
        )
        return jnp.where(is_second, weight, 1.0) * jnp.mean(error**2)

    def step(carry: tuple, batch: tuple) -> tuple:
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_fn)(params, *batch)
        updates, state = tx.update(gradients, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), None

    batches = (
        jax.random.split(jax.random.key(0), STEPS),
        jnp.asarray(np.isin(number, list(second))),
        jnp.asarray(np.where(np.isin(number, list(bad)), gain, 1.0), jnp.float32),
    )
    with gs.telemetry.Log(params, path, name=path.stem) as log:
        log(state := tx.init(params))
        log(jax.jit(lambda carry: jax.lax.scan(step, carry, batches)[0][1])((params, state)))
    return read_run(path)
