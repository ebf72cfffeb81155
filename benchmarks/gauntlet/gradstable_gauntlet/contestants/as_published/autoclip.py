"""AutoClip, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import (
    Tally,
    clip_coefficient,
    new_tally,
    tell,
)


class AutoClipState(NamedTuple):
    """State of ``autoclip``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, norms seen
    norms: jax.Array  # shape=(size,), dtype=jnp.float32, inf where there is none yet
    ordered: jax.Array  # shape=(size,), dtype=jnp.float32, the same in ascending order
    poisoned: jax.Array  # shape=(), dtype=jnp.bool_, whether there was a NaN
    tally: Tally


def autoclip(*, percentile: float = 10.0, size: int = 1024) -> optax.GradientTransformation:
    """Clip the global norm to a percentile of all norms so far, this one included.

    The authors keep the whole history. A compiled program needs a fixed length: here it is the last
    ``size`` norms, which is the same for that many steps.

    With a NaN, as published: it enters the history, so every percentile is NaN from then on, and so
    is every gradient: the run is lost, even if its parameters were not. An infinite norm enters
    too, but only raises the percentile.

    Source:
      Seetharaman, Wichern, Pardo, Le Roux, "AutoClip: Adaptive Gradient Clipping for Source
      Separation Networks", 2020, arXiv:2007.14469; code: github.com/pseeth/autoclip.
    """

    def init(params: Any) -> AutoClipState:
        del params
        empty, no = jnp.full(size, jnp.inf), jnp.zeros((), jnp.bool_)
        return AutoClipState(jnp.zeros((), jnp.int32), empty, empty, no, new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AutoClipState]:
        del params
        norm = optax.tree.norm(updates)
        known = jnp.where(jnp.isnan(norm), jnp.inf, norm)
        at = state.count % size
        learned = AutoClipState(
            count=state.count + 1,
            norms=jnp.where(jnp.arange(size) == at, known, state.norms),
            ordered=_replace(state.ordered, state.norms[at], known),
            poisoned=state.poisoned | jnp.isnan(norm),
            tally=state.tally,
        )
        factor = clip_coefficient(norm, _percentile(learned, percentile))
        clipped = jax.tree.map(lambda g: g * factor, updates)
        return clipped, learned._replace(tally=tell(state.tally, ~(factor >= 1.0)))

    return optax.GradientTransformation(init, update)


def _replace(ordered: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """Return sorted numbers with one replaced by another, far more cheaply than sorting again."""
    place = jnp.arange(ordered.size)
    shifted = jnp.append(ordered[1:], jnp.inf)
    short = jnp.where(place < jnp.sum(ordered < old), ordered, shifted)
    into = jnp.sum(short < new)
    return jnp.where(place < into, short, jnp.where(place == into, new, jnp.roll(short, 1)))


def _percentile(state: AutoClipState, percent: float) -> jax.Array:
    """Return the percentile of the stored norms, as NumPy computes it."""
    held = jnp.minimum(state.count, state.ordered.size)
    rank = percent / 100.0 * (held - 1).astype(jnp.float32)
    low = jnp.floor(rank).astype(jnp.int32)
    below, above = state.ordered[low], state.ordered[jnp.minimum(low + 1, held - 1)]
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    return jnp.where(state.poisoned, jnp.nan, between)
