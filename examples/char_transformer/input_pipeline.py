"""Python's own documentation, from the standard library, as characters."""

from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(CHARACTERS)  # the index of all other characters, such as curly quotes
VOCABULARY = len(CHARACTERS) + 1


class Batch(NamedTuple):
    """One batch of ``B`` pieces of text."""

    tokens: np.ndarray  # [B, T] int32
    targets: np.ndarray  # [B, T] int32, the character that follows each
    weights: np.ndarray  # [B] float32, how much each piece counts in the loss


def text() -> str:
    """Return the topics that ``help()`` knows, each paragraph once.

    Some topics contain others. Without this, much of the validation text would be in the training
    text too.
    """
    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def encode(characters: str) -> np.ndarray:
    """Return the index of each character, int32."""
    index = {character: i for i, character in enumerate(CHARACTERS)}
    return np.array([index.get(character, OTHER) for character in characters], np.int32)


def split(tokens: np.ndarray, *, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the first part, for training, and the last, for validation."""
    cut = round(len(tokens) * (1 - held_out))
    return tokens[:cut], tokens[cut:]


def unigram_bits(tokens: np.ndarray, held: np.ndarray) -> float:
    """Return the bits per character of a text, predicted from character frequencies alone.

    The frequencies are those of the training text. Each character is counted once more, since one
    that occurs only in the other text would otherwise have probability zero.
    """
    counts = np.bincount(tokens, minlength=VOCABULARY) + 1.0
    return float(np.mean(-np.log2(counts / counts.sum())[held]))


def batches(
    tokens: np.ndarray, *, context: int, batch_size: int, steps: int, seed: int
) -> Iterator[Batch]:
    """Yield batches of pieces that start anywhere."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield _pieces(tokens, rng.integers(len(tokens) - context, size=batch_size), context)


def whole(tokens: np.ndarray, *, context: int) -> Batch:
    """Return the whole text as consecutive pieces, except for a remainder at the end."""
    return _pieces(tokens, np.arange(0, len(tokens) - context, context), context)


def _pieces(tokens: np.ndarray, starts: np.ndarray, context: int) -> Batch:
    rows = tokens[starts[:, None] + np.arange(context + 1)]
    return Batch(rows[:, :-1], rows[:, 1:], np.ones(len(starts), np.float32))
