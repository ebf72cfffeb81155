"""A bit that one device has flipped in its copy of the parameters.

Nothing is NaN, and the loss says nothing: from here on, the copies drift apart. Only a comparison
of them finds it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs

BAD_DEVICE, BIT = 5, 12


def with_flipped_bit(array: jax.Array, device: int, bit: int) -> jax.Array:
    """Return an array whose copy on one device has another bit in its first entry."""
    parts = [np.array(shard.data) for shard in array.addressable_shards]
    parts[device].view(np.uint32).flat[0] ^= np.uint32(1 << bit)
    placed = [
        jax.device_put(part, shard.device)
        for part, shard in zip(parts, array.addressable_shards, strict=True)
    ]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, placed)


def main() -> None:
    mesh = Mesh(np.asarray(jax.devices("cpu")), ("data",))
    params = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
    params = jax.device_put(params, NamedSharding(mesh, P()))
    print("Before:", gs.sharding.unequal_replicas(params))
    params["w"] = with_flipped_bit(params["w"], BAD_DEVICE, BIT)
    for name, devices in gs.sharding.unequal_replicas(params).items():
        print(f"After: {name} is another on {', '.join(devices)} than on the other devices.")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)  # simulated
    main()
