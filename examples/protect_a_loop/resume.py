"""A run that may be killed at any time: start it again, and it goes on bit for bit.

``python -m examples.protect_a_loop.resume FOLDER``; with a number, it kills itself at that step.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint import v1 as ocp

import gradstable as gs

STEPS, EVERY = 200, 50
tx = gs.protect(optax.adamw(1e-2), rollback=True)


def batch(step: int) -> np.ndarray:
    x = np.random.default_rng(step).normal(size=(32, 4)).astype(np.float32)
    return x * np.nan if step == 120 else x


@jax.jit
def train_step(state: Any, x: jax.Array) -> Any:
    def loss_fn(params: Any) -> jax.Array:
        return jnp.mean((jnp.tanh(x @ params["in"]) @ params["out"] - jnp.sin(x.sum(axis=1))) ** 2)

    loss, gradients = jax.value_and_grad(loss_fn)(state["params"])
    updates, opt_state = tx.update(gradients, state["opt_state"], state["params"], value=loss)
    return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}


def init() -> Any:
    keys = jax.random.split(jax.random.key(0))
    params = {
        "in": jax.random.normal(keys[0], (4, 32)) / 2,
        "out": jax.random.normal(keys[1], (32,)) / 6,
    }
    return {"params": params, "opt_state": tx.init(params)}


def placed(make: Callable[[], Any]) -> Any:
    """Return the types of what a function makes, on the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        jax.eval_shape(make),
    )


def main(folder: Path, killed_at: int = 0) -> Any:
    folder = folder.absolute()
    with ocp.training.Checkpointer(str(folder / "checkpoints")) as checkpointer:
        latest = checkpointer.latest
        first = 0 if latest is None else latest.step
        state = init() if latest is None else checkpointer.load(first, placed(init))
        with gs.watch(
            tx, state["params"], folder / "run.jsonl", resume=first > 0, every=25
        ) as watch:
            for step in range(first + 1, STEPS + 1):
                state = train_step(state, batch(step))
                watch(state["opt_state"])
                if step % EVERY == 0:
                    checkpointer.save(step, state)
                if step == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
    return state


if __name__ == "__main__":
    last = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(gs.explain(last["opt_state"], last["params"]))
