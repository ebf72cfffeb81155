"""Language models on the characters of Python's help and on a stream with two-token memory."""

import pydoc_data.topics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Params, Task
from gradstable_gauntlet.tasks.decoder import Decoder
from gradstable_gauntlet.tasks.parts import calm, index

_LETTERS, _KNOWN, _UNKNOWN = 64, 180_000, 20_000
_STATES = 16


def lm_topics(
    *,
    qk_norm: bool = False,
    z_weight: float = 0.0,
    layers: int = 1,
    width: int = 16,
    context: int = 16,
    batch_size: int = 8,
    steps: int = 300,
    dtype: DTypeLike = jnp.float32,
) -> Task:
    """Return the task of a decoder on the characters of Python's help pages.

    This is real text that comes with every Python; it differs a little between versions. Lowercase
    letters become uppercase and runs of blanks become one, so that 64 tokens are enough.
    """
    topics = pydoc_data.topics.topics
    text = " ".join(" ".join(topics[name] for name in sorted(topics)).upper().split())
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int32) - 32
    codes = jnp.asarray(np.clip(codes, 0, _LETTERS - 1))
    model = Decoder(
        _LETTERS, width, layers, context, qk_norm=qk_norm, z_weight=z_weight, dtype=dtype
    )

    def batch(key: jax.Array) -> Batch:
        draws = jax.random.uniform(key, (batch_size, context + 2))
        starts = index(draws[:, :1], _KNOWN - context)
        return codes[starts + jnp.arange(context + 1)], index(draws[:, 1:], _LETTERS)

    rest = codes[_KNOWN : _KNOWN + _UNKNOWN]
    every = np.linspace(0, len(rest) - context - 1, 128).astype(np.int32)
    held = rest[every[:, None] + np.arange(context + 1)]
    return _task(model, batch, held, steps, "decoder on characters of Python's help")


def lm_markov(
    *,
    qk_norm: bool = False,
    z_weight: float = 0.0,
    layers: int = 1,
    width: int = 16,
    context: int = 16,
    batch_size: int = 8,
    steps: int = 300,
    dtype: DTypeLike = jnp.float32,
) -> Task:
    """Return the task of the same decoder on a stream whose next token depends on the last two.

    Every batch is new, so nothing can be memorized, and no text is needed. The logits of the next
    token are a random function of the last token plus one of the token before it, which attention
    has to find. The loss cannot fall below the entropy of the stream.
    """
    table = np.random.default_rng(0).normal(size=(2, _STATES, _STATES)) * 1.5
    odds = np.exp(table[0][:, None] + table[1][None])
    below = jnp.asarray(np.cumsum(odds / odds.sum(-1, keepdims=True), -1)[..., :-1], jnp.float32)
    model = Decoder(
        _STATES, width, layers, context, qk_norm=qk_norm, z_weight=z_weight, dtype=dtype
    )

    def stream(draws: jax.Array) -> jax.Array:
        """Return tokens ``[size, context + 1]`` from random numbers ``[context + 3, size]``."""

        def step(last: tuple[jax.Array, jax.Array], draw: jax.Array) -> Any:
            new = jnp.sum(draw[:, None] > below[last], -1)
            return (last[1], new), new

        first = index(draws[:2], _STATES)
        return lax.scan(step, (first[0], first[1]), draws[2:])[1].T

    def batch(key: jax.Array) -> Batch:
        draws = jax.random.uniform(key, (2 * context + 4, batch_size))
        return stream(draws[: context + 3]), index(draws[context + 3 :].T, _STATES)

    held = stream(jax.random.uniform(jax.random.key(99), (context + 3, 128)))
    return _task(model, batch, held, steps, "decoder on a stream with two tokens' memory")


def _task(
    model: Decoder, batch: Callable[[jax.Array], Batch], held: jax.Array, steps: int, about: str
) -> Task:
    plain = model._replace(z_weight=0.0)
    if model.qk_norm:
        about += ", with QK-norm and z-loss"

    def held_out(params: Params) -> jax.Array:
        return plain.loss(params, (held, held), calm())

    return Task(model.init, batch, model.loss, held_out, steps, about)
