"""Whether the copies of an array on several devices are still the same."""

from typing import Any

import jax
import numpy as np

from gradstable._src.core.paths import leaf_paths
from gradstable._src.replay.fingerprint import fingerprint


def unequal_replicas(tree: Any) -> dict[str, tuple[str, ...]]:
    """Return which leaves differ between devices that should hold the same, and on which of them.

    Use it every few thousand steps of a run on several devices, on parameters and optimizer state:
    copies that are the same by construction drift apart only by a fault of a machine, or by a bug
    such as a missing ``psum``, and nothing else shows it. It compares ``gs.fingerprint`` of the
    copies of each part, computed where they are, and waits for them.

    It sees the devices of this process. It does not see a fault that happened before values were
    averaged over devices, which all copies share.

    Args:
      tree: tree of arrays; others than ``jax.Array`` are ignored.

    Returns:
      For each leaf with unequal copies, by its path, the devices whose copy is not that of the
      majority. Empty if all is well.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> gs.sharding.unequal_replicas({"w": jnp.ones(3)})
      {}
    """
    found: dict[str, tuple[str, ...]] = {}
    for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        odd = _odd_ones(leaf) if isinstance(leaf, jax.Array) else ()
        if odd:
            found[path] = odd
    return found


def _odd_ones(array: jax.Array) -> tuple[str, ...]:
    copies: dict[str, list[tuple[str, Any]]] = {}
    for shard in array.addressable_shards:
        copies.setdefault(str(shard.index), []).append((str(shard.device), shard.data))
    found: list[str] = []
    for same in copies.values():
        if len(same) > 1:
            hashes = [(device, _number(fingerprint(data))) for device, data in same]
            numbers = [number for _, number in hashes]
            usual = max(numbers, key=numbers.count)
            found += [device for device, number in hashes if number != usual]
    return tuple(found)


def _number(hashed: jax.Array) -> int:
    high, low = np.asarray(hashed).tolist()
    return (high << 32) | low
