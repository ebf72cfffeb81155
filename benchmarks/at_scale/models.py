"""Decoder language models of 1 to 400 billion parameters, as shapes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Model(NamedTuple):
    """A Llama-style decoder: grouped queries, a gated MLP, untied embeddings."""

    layers: int
    width: int
    hidden: int  # of the gated MLP
    keys: int  # width of keys, and of values
    vocabulary: int


# All sizes are multiples of 256, so that 256 devices get equal parts. 1B is like TinyLlama with 20
# layers, 70B and 400B are like Llama 3.1, and 30B is like Llama's 33B with grouped queries. 8B has
# 64 layers, more than usual, to get many leaves; 175B is as deep and as wide as GPT-3.
MODELS = {
    "1B": Model(20, 2048, 5632, 256, 32_000),
    "8B": Model(64, 3072, 9216, 1024, 128_256),
    "30B": Model(60, 6656, 17_920, 1024, 128_256),
    "70B": Model(80, 8192, 28_672, 1024, 128_256),
    "175B": Model(96, 12_288, 39_936, 1024, 128_256),
    "400B": Model(126, 16_384, 53_248, 1024, 128_256),
}


def parameters(model: Model, *, stacked: bool = False) -> dict[str, Any]:
    """Return the parameters of a model as float32 shapes.

    Layers are separate leaves, or stacked as for ``jax.lax.scan``: one leaf per kind, with a
    leading axis of layers.
    """
    width, hidden, keys = model.width, model.hidden, model.keys
    layer = {
        "query": (width, width),
        "key": (width, keys),
        "value": (width, keys),
        "out": (width, width),
        "gate": (width, hidden),
        "up": (width, hidden),
        "down": (hidden, width),
        "attention_norm": (width,),
        "network_norm": (width,),
    }
    ends = {
        "embedding": (model.vocabulary, width),
        "final_norm": (width,),
        "head": (width, model.vocabulary),
    }
    if stacked:
        layers: Any = {kind: (model.layers, *shape) for kind, shape in layer.items()}
    else:
        layers = {f"layer_{index:03}": layer for index in range(model.layers)}

    def leaf(shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    tree = {"layers": layers, **ends}
    return jax.tree.map(leaf, tree, is_leaf=lambda node: isinstance(node, tuple))


def count(tree: Any) -> int:
    """Return the number of entries in all leaves."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
