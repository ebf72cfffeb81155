"""Python's own documentation, read with Grain; each process reads the rows of its devices."""

from collections.abc import Iterator

import grain
import jax
import numpy as np

from examples.char_transformer.input_pipeline import VOCABULARY, Batch, encode, split, text

__all__ = ["VOCABULARY", "Batch", "batches", "load", "spoil", "whole"]


class Pieces:
    """A Grain source with one piece of text for each possible start."""

    def __init__(self, tokens: np.ndarray, *, context: int, stride: int = 1) -> None:
        self._tokens, self._context, self._stride = tokens, context, stride

    def __len__(self) -> int:
        return (len(self._tokens) - self._context - 1) // self._stride + 1

    def __getitem__(self, index: int) -> Batch:
        start = index * self._stride
        row = self._tokens[start : start + self._context + 1]
        return Batch(row[:-1], row[1:], np.float32(1.0))  # pyright: ignore[reportArgumentType]


def load(*, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the training text and the validation text."""
    return split(encode(text()), held_out=held_out)


def batches(
    tokens: np.ndarray, *, context: int, batch_size: int, seed: int
) -> grain.DatasetIterator[Batch]:
    """Return this process's part of an endless stream of batches, reshuffled in each epoch.

    The order is created for all processes together and then dealt out in turn, so the pieces of a
    step and the data position are the same for any number of processes.
    """
    pieces = grain.MapDataset.source(Pieces(tokens, context=context))
    dealt = _deal(pieces.seed(seed).shuffle().repeat(), batch_size)
    return iter(dealt.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def whole(tokens: np.ndarray, *, context: int, batch_size: int) -> Iterator[Batch]:
    """Yield this process's consecutive pieces of a text, except for a remainder at the end."""
    pieces = grain.MapDataset.source(Pieces(tokens, context=context, stride=context))
    full = pieces[: len(pieces) // batch_size * batch_size]
    yield from _deal(full, batch_size)


def _deal(pieces: grain.MapDataset, batch_size: int) -> grain.MapDataset:
    processes = jax.process_count()
    if batch_size % processes:
        raise ValueError(f"cannot split {batch_size} pieces per step over {processes} processes")
    own = pieces[jax.process_index() :: processes]
    return own.batch(batch_size // processes)


def spoil(batch: Batch, *, step: int, at: int | None, rows: int) -> Batch:
    """Return the batch at this step, with NaN in the first rows of process 0 at the fault.

    Characters cannot be NaN, but the weights of the pieces can. No other process sees the fault.
    """
    if step != at or jax.process_index() != 0:
        return batch
    weights = batch.weights.copy()
    weights[:rows] = np.nan
    return batch._replace(weights=weights)
