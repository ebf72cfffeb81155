"""One bad example on one of eight devices: the mean over all of them is NaN everywhere.

The loss runs under ``jax.shard_map``. A time of arrival before that of departure makes a negative
number under a root on the device that has this example.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import gradstable as gs

BATCH, BAD = 32, 21


def loss_on(mesh: Mesh) -> Any:
    def of_shard(params: Any, times: jax.Array) -> jax.Array:
        duration = times[:, 1] - times[:, 0]
        feature = jnp.sqrt(duration)
        return jax.lax.pmean(jnp.mean((params["w"] * feature - 1.0) ** 2), "data")

    return jax.shard_map(of_shard, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())


def main() -> None:
    mesh = Mesh(np.asarray(jax.devices("cpu")), ("data",))
    start = jnp.arange(float(BATCH))
    times = jnp.stack([start, start + 4.0], axis=1).at[BAD, 1].set(0.0)
    print(gs.autopsy(loss_on(mesh), {"w": jnp.ones(())}, times))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)  # simulated
    main()
