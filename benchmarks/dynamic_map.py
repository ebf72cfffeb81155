"""The 8-bit numbers of Dettmers et al. 2021, rounded to nearest, as a baseline.

They are simulated: the state stays float32, but holds only numbers that 8 bits and a block can
represent.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

BLOCK = 256


def dynamic_map(*, signed: bool) -> np.ndarray:
    """Return the 256 (or fewer) numbers in [-1, 1] or [0, 1], sorted.

    The number of leading zeros of a code is a power of ten, and the rest is a linear fraction: the
    midpoints of ``2**bits`` parts of [0.1, 1].
    """
    numbers = [0.0, 1.0]
    for power in range(7):
        parts = 2 ** (power + (0 if signed else 1))
        edges = np.linspace(0.1, 1.0, parts + 1)
        middles = 10.0 ** (power - 6) * (edges[:-1] + edges[1:]) / 2.0
        numbers += [*middles, *-middles] if signed else [*middles]
    return np.array(sorted(numbers), np.float32)


_SIGNED, _UNSIGNED = dynamic_map(signed=True), dynamic_map(signed=False)


def published_8_bit(
    inner: optax.GradientTransformation, *, min_size: int = 4096
) -> optax.GradientTransformation:
    """Return an optimizer with ``mu`` and ``nu`` in these numbers between steps."""

    def quantize(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if leaf.size < min_size or not any(field in name for field in (".mu", ".nu")):
            return leaf
        table = jnp.asarray(_SIGNED if ".mu" in name else _UNSIGNED)
        flat = leaf.reshape(-1)
        blocks = jnp.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)
        largest = jnp.maximum(jnp.max(jnp.abs(blocks), axis=1, keepdims=True), 1e-30)
        middle = (table[1:] + table[:-1]) / 2.0
        nearest = table[jnp.searchsorted(middle, blocks / largest)] * largest
        return nearest.reshape(-1)[: flat.size].reshape(leaf.shape)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, state = inner.update(updates, state, params)
        return updates, jax.tree_util.tree_map_with_path(quantize, state)

    return optax.GradientTransformation(inner.init, update)
