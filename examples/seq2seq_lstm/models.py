"""An encoder that reads the sum, and a decoder that writes the result."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Seq2Seq(nnx.Module):
    """Two LSTMs: the decoder starts where the encoder stopped."""

    def __init__(
        self, vocabulary: int, features: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        self.embed = nnx.Embed(vocabulary, features, dtype=dtype, rngs=rngs)
        encoder = nnx.OptimizedLSTMCell(features, hidden, dtype=dtype, rngs=rngs)
        decoder = nnx.OptimizedLSTMCell(features, hidden, dtype=dtype, rngs=rngs)
        self.encoder = nnx.RNN(encoder, return_carry=True, rngs=rngs)
        self.decoder = nnx.RNN(decoder, return_carry=True, rngs=rngs)
        self.head = nnx.Linear(hidden, vocabulary, dtype=dtype, rngs=rngs)

    def __call__(self, questions: jax.Array, previous: jax.Array) -> jax.Array:
        """Return float32 logits ``[B, T, vocabulary]``, given the characters before each position.

        ``questions`` is ``[B, S]`` and ``previous`` is ``[B, T]``, both integers.
        """
        carry, _ = self.encoder(self.embed(questions))
        decoded: Any = self.decoder(self.embed(previous), initial_carry=carry)
        _, outputs = decoded
        return self.head(outputs).astype(jnp.float32)

    def solve(self, questions: jax.Array, *, start: int, length: int) -> jax.Array:
        """Return the most likely characters ``[B, length]``, one after another."""
        carry, _ = self.encoder(self.embed(questions))
        token = jnp.full(questions.shape[0], start, jnp.int32)
        answer = []
        for _ in range(length):
            carry, output = self.decoder.cell(carry, self.embed(token))
            token = jnp.argmax(self.head(output), axis=-1)
            answer.append(token)
        return jnp.stack(answer, axis=1)
