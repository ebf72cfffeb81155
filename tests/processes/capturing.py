"""A step over the devices of all processes that is rejected, captured, and run again."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradstable as gs


def rows() -> np.ndarray:
    """Return the whole batch; the last row is broken, which only the last process sees."""
    whole = np.arange(32, dtype=np.float32).reshape(8, 4)
    whole[7, 2] = np.nan
    return whole


def main(folder: Path) -> dict[str, Any]:
    """Return what this process has captured, and what a replay says."""
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("x"))
    whole = rows()
    batch = jax.make_array_from_callback(whole.shape, split, lambda index: whole[index])
    params = jax.make_array_from_callback((4,), split, lambda index: np.ones(4, np.float32)[index])
    tx = gs.guard(optax.adam(1e-2))
    state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params: Any, state: Any, batch: jax.Array) -> Any:
        gradient = jax.grad(lambda params: jnp.mean((batch @ params) ** 2))(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    before = params
    params, state = step(params, state, batch)
    with gs.capture(folder / "captured", every=1) as capture:
        capture(state, {"x": batch, "process": jax.process_index()}, params=params, step=5)
    found = gs.replay(step, before, state, batch)
    return {
        "folders": [path.name for path in capture.folders],
        "verdict": found.verdict,
        "agree": gs.fingerprint(params).tolist() == gs.fingerprint(before).tolist(),
    }
