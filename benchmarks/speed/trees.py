"""The parameter trees: few large leaves, many small ones, one giant leaf, one of 40 %, a stack."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.counting import large_tree

Tree = dict[str, Any]  # types of float32 arrays

# The factor for the sides of all matrices; the number of parameters scales with its square.
TINY, QUICK, CPU, GPU = 0.02, 0.25, 1.0, 3.0


def trees(scale: float = CPU, *, num_small: int = 1000) -> dict[str, Tree]:
    """Return the trees by name; at scale 1 they have 41.1, 4.1, 41.6, 41.5 and 45.6 million."""
    params = int(41_600_000 * scale**2)
    # As real ones have: XLA reads four entries at once on a GPU, and others need blocks of 256.
    multiple = 1 if scale < QUICK else 16
    return {
        "81 large leaves": large_tree(num_params=params, multiple=multiple),
        f"{num_small:,} small leaves": {
            f"w{i:04}": _f32(_side(64, scale), _side(64, scale)) for i in range(num_small)
        },
        "1 giant leaf": large_tree(num_leaves=1, num_params=params, multiple=multiple),
        "40 % in one leaf": _uneven(params, multiple),
        "24 stacked layers": _stacked(_side(384, scale), _side(8192, scale)),
    }


def _uneven(params: int, multiple: int) -> Tree:
    """Return a tree with one leaf, such as an embedding, that has 40 % of the entries."""
    one = large_tree(1, int(0.4 * params), multiple=multiple)["w00"]
    return {"embedding": one} | large_tree(48, int(0.6 * params), multiple=multiple)


def _stacked(width: int, words: int) -> Tree:
    """Return a transformer as it is written for ``jax.lax.scan`` over its layers."""
    layer = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "norm1": (width,),
        "norm2": (width,),
    }
    stacked = {name: _f32(24, *shape) for name, shape in layer.items()}
    return stacked | {"embedding": _f32(words, width)}


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _side(side: int, scale: float) -> int:
    return max(2, round(side * scale))
