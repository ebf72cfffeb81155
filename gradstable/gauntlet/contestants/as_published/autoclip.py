"""AutoClip, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable.gauntlet.contestants.as_published.common import (
    Tally,
    clip_coefficient,
    new_tally,
    tell,
)


class AutoClipState(NamedTuple):
    """State of ``autoclip``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, norms seen
    norms: jax.Array  # shape=(size,), dtype=jnp.float32, inf where there is none yet
    tally: Tally


def autoclip(*, percentile: float = 10.0, size: int = 1024) -> optax.GradientTransformation:
    """Clip the global norm to a percentile of all norms so far, this one included.

    The authors keep the whole history. A compiled program needs a length: here the last ``size``
    norms, which is the same for as many steps.

    With a NaN, as published: it enters the history, of which every percentile is NaN from then on,
    and so is every gradient: the run is lost, even if its parameters were not. An infinite norm
    enters too, and does no more than raise the percentile.

    Source:
      Seetharaman, Wichern, Pardo, Le Roux, "AutoClip: Adaptive Gradient Clipping for Source
      Separation Networks", 2020, arXiv:2007.14469; code: github.com/pseeth/autoclip.
    """

    def init(params: Any) -> AutoClipState:
        del params
        return AutoClipState(jnp.zeros((), jnp.int32), jnp.full(size, jnp.inf), new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AutoClipState]:
        del params
        norm = optax.tree.norm(updates)
        place = jnp.arange(size) == state.count % size
        norms = jnp.where(place, norm, state.norms)
        count = state.count + 1
        factor = clip_coefficient(norm, _percentile(norms, jnp.minimum(count, size), percentile))
        clipped = jax.tree.map(lambda g: g * factor, updates)
        return clipped, AutoClipState(count, norms, tell(state.tally, ~(factor >= 1.0)))

    return optax.GradientTransformation(init, update)


def _percentile(norms: jax.Array, held: jax.Array, percent: float) -> jax.Array:
    """Return the percentile of the ``held`` smallest, as NumPy does it."""
    rank = percent / 100.0 * (held - 1).astype(jnp.float32)
    low = jnp.floor(rank).astype(jnp.int32)
    ordered = jnp.sort(norms)
    below, above = ordered[low], ordered[jnp.minimum(low + 1, held - 1)]
    between = below + (rank - low.astype(jnp.float32)) * (above - below)
    return jnp.where(jnp.any(jnp.isnan(norms)), jnp.nan, between)
