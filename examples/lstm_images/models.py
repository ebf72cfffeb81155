"""An LSTM that reads an image row by row."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class RowReader(nnx.Module):
    """An LSTM over the rows, and a classifier on its last output."""

    def __init__(
        self, columns: int, hidden: int, classes: int, *, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        cell = nnx.OptimizedLSTMCell(columns, hidden, dtype=dtype, rngs=rngs)
        self.lstm = nnx.RNN(cell, rngs=rngs)
        self.head = nnx.Linear(hidden, classes, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return float32 logits ``[B, classes]`` of images ``[B, rows, columns]``."""
        outputs: Any = self.lstm(images)
        return self.head(outputs[:, -1]).astype(jnp.float32)
