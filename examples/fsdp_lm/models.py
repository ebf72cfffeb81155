"""A decoder-only language model: RMSNorm, rotary positions, gated feed-forward, no biases."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

ROTARY_BASE = 10_000.0


class Attention(nnx.Module):
    """Causal attention with rotary (relative) positions."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.into = nnx.Linear(features, 3 * features, use_bias=False, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(features, features, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        by_head = self.into(x).reshape(*x.shape[:2], 3 * self.heads, -1)
        query, key, value = jnp.split(by_head, 3, axis=2)
        mixed = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        return self.out(mixed.reshape(x.shape))


def rotate(x: jax.Array) -> jax.Array:
    """Return ``[B, T, H, D]`` with pairs of entries rotated by angles that grow with ``T``."""
    length, size = x.shape[1], x.shape[3] // 2
    speeds = ROTARY_BASE ** (-jnp.arange(size, dtype=jnp.float32) / size)
    angles = (jnp.arange(length, dtype=jnp.float32)[:, None] * speeds)[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class FeedForward(nnx.Module):
    """Two products, one of which gates the other (SwiGLU)."""

    def __init__(self, features: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        hidden = 3 * features
        self.widen = nnx.Linear(features, 2 * hidden, use_bias=False, dtype=dtype, rngs=rngs)
        self.narrow = nnx.Linear(hidden, features, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.widen(x), 2, axis=-1)
        return self.narrow(nnx.silu(gate) * value)


class Block(nnx.Module):
    """Attention and a feed-forward network, each after a norm, with a residual connection."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        self.norm_attention = nnx.RMSNorm(features, dtype=dtype, rngs=rngs)
        self.attention = Attention(features, heads, dtype=dtype, rngs=rngs)
        self.norm_feed = nnx.RMSNorm(features, dtype=dtype, rngs=rngs)
        self.feed = FeedForward(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm_attention(x))
        return x + self.feed(self.norm_feed(x))


class DecoderLM(nnx.Module):
    """Predicts each character from the previous ones.

    ``everywhere``, if given, is the sharding of a layer's parameters while it is computed.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        features: int,
        heads: int,
        layers: int,
        dtype: Any,
        everywhere: NamedSharding | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.everywhere = everywhere
        self.characters = nnx.Embed(vocabulary, features, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [Block(features, heads, dtype=dtype, rngs=rngs) for _ in range(layers)]
        )
        self.norm = nnx.RMSNorm(features, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(features, vocabulary, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return float32 logits ``[B, T, vocabulary]`` of integers ``[B, T]``."""
        x = self._gathered(self.characters, tokens)
        for block in self.blocks:
            x = self._gathered(block, x)
        return self._gathered(self.head, self.norm(x)).astype(jnp.float32)

    def _gathered(self, layer: Any, x: jax.Array) -> jax.Array:
        """Return the output of a layer for ``x``, with all of its parameters on every device.

        Saying so explicitly keeps the rows where they are: the compiler would rather send some of
        them around than some of the gradients. The checkpoint gathers again in the backward pass;
        without it each device would hold all layers by then.
        """
        if self.everywhere is None:
            return layer(x)
        graphdef, parts = nnx.split(layer)

        @jax.checkpoint
        def call(parts: Any, x: jax.Array) -> jax.Array:
            whole = jax.lax.with_sharding_constraint(parts, self.everywhere)
            return nnx.merge(graphdef, whole)(x)

        return call(parts, x)
