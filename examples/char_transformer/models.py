"""A small decoder-only, pre-norm transformer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def attend(query: Any, key: Any, value: Any, **options: Any) -> jax.Array:
    """Compute Flax's attention in float32, as its softmax should be even in float16."""
    wide = (x.astype(jnp.float32) for x in (query, key, value))
    options["dtype"] = jnp.float32
    return nnx.dot_product_attention(*wide, **options).astype(query.dtype)


class Block(nnx.Module):
    """Attention and a feed-forward network, each after a LayerNorm, with a residual connection."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        self.norm_attention = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, features, decode=False, attention_fn=attend, dtype=dtype, rngs=rngs
        )
        self.norm_feed = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.widen = nnx.Linear(features, 4 * features, dtype=dtype, rngs=rngs)
        self.narrow = nnx.Linear(4 * features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm_attention(x), mask=mask)
        return x + self.narrow(nnx.gelu(self.widen(self.norm_feed(x))))


class CharTransformer(nnx.Module):
    """Predicts each character from the previous ones."""

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        features: int,
        heads: int,
        layers: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.characters = nnx.Embed(vocabulary, features, dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(context, features, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [Block(features, heads, dtype=dtype, rngs=rngs) for _ in range(layers)]
        )
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(features, vocabulary, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return float32 logits ``[B, T, vocabulary]`` of integers ``[B, T]``, ``T`` <= context."""
        x = self.characters(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x)).astype(jnp.float32)
