"""A run has rejected a step: which batch was it, which example, and which line?

``python -m examples.protect_a_loop.find_bad_batch FOLDER`` trains, and then looks.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs

tx = gs.protect(optax.adamw(1e-2))


def batches(steps: int = 200) -> np.ndarray:
    x = np.random.default_rng(0).uniform(0.1, 1.0, size=(steps, 32, 4)).astype(np.float32)
    x[120, 7] = -1.0  # a sensor that was mounted the wrong way round
    return x


def loss_fn(params: Any, x: jax.Array) -> jax.Array:
    features = jnp.sqrt(x @ jnp.abs(params["in"]))
    return jnp.mean((features @ params["out"] - x.sum(axis=1)) ** 2)


@jax.jit
def train_step(params: Any, opt_state: Any, x: jax.Array) -> tuple[Any, Any]:
    loss, gradients = jax.value_and_grad(loss_fn)(params, x)
    updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
    return optax.apply_updates(params, updates), opt_state


def train(folder: Path) -> None:
    params: Any = {"in": jnp.ones((4, 8)), "out": jnp.zeros(8)}
    opt_state = tx.init(params)
    with gs.watch(tx, params, folder / "run.jsonl", capture_to=folder / "bad") as watch:
        for x in batches():
            params, opt_state = train_step(params, opt_state, x)
            watch(opt_state, params, batch=x)


def look(folder: Path) -> gs.Autopsy:
    run = gs.telemetry.read_run(folder / "run.jsonl")
    print(f"rejected: step {run.step[run.rejected].tolist()}")
    bad = gs.read_capture(next((folder / "bad").iterdir()))
    report = gs.autopsy(loss_fn, bad.params, bad.batch)
    print(report)
    return report


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    look(Path(sys.argv[1]))
