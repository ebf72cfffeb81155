"""Sums as characters: ``"12+7 "`` is the question, ``"19"`` the answer."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHARACTERS = "0123456789+ "  # a space pads questions, and ends answers
START = CHARACTERS.index(" ")  # what the decoder reads before the first character
# Streams of random numbers that must not depend on each other.
_SPLIT, _DRAW = 0, 1


class Batch(NamedTuple):
    """One batch of ``B`` problems."""

    questions: np.ndarray  # [B, 2 * digits + 1] int32, padded with spaces on the right
    answers: np.ndarray  # [B, digits + 2] int32, the last character is always a space
    weights: np.ndarray  # [B] float32, how much each problem counts in the loss


def split(*, digits: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays ``[N, 2]`` of pairs, for training and held out.

    ``a + b`` and ``b + a`` are on the same side, or the held-out sums could be memorized.
    """
    first, second = np.triu_indices(10**digits)
    order = np.random.default_rng([seed, _SPLIT]).permutation(first.size)
    pairs = np.stack([first, second], axis=1)[order]
    return _both_ways(pairs[held_out:]), _both_ways(pairs[:held_out])


def encode(pairs: np.ndarray, *, digits: int) -> Batch:
    """Return the characters of the pairs, all with weight 1."""
    questions = [f"{a}+{b}".ljust(2 * digits + 1) for a, b in pairs]
    answers = [f"{a + b}".ljust(digits + 2) for a, b in pairs]
    return Batch(_indices(questions), _indices(answers), np.ones(len(pairs), np.float32))


def decode(row: np.ndarray) -> str:
    """Return the text of a row of character indices, up to the spaces at its end."""
    return "".join(CHARACTERS[i] for i in row).rstrip()


def batches(
    pairs: np.ndarray, *, digits: int, batch_size: int, steps: int, seed: int
) -> Iterator[Batch]:
    """Yield batches of pairs drawn with replacement."""
    everything = encode(pairs, digits=digits)
    rng = np.random.default_rng([seed, _DRAW])
    for _ in range(steps):
        rows = rng.integers(len(pairs), size=batch_size)
        yield Batch(*(field[rows] for field in everything))


def _both_ways(pairs: np.ndarray) -> np.ndarray:
    different = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.concatenate([pairs, different[:, ::-1]])


def _indices(texts: list[str]) -> np.ndarray:
    return np.array([[CHARACTERS.index(c) for c in text] for text in texts], np.int32)
