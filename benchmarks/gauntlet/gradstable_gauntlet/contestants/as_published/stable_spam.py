"""Stable-SPAM, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestant import Schedule
from gradstable_gauntlet.contestants.as_published.common import Tally, new_tally, tell


class OfLeaf(NamedTuple):
    """What Stable-SPAM remembers about the size of a leaf."""

    largest: jax.Array  # shape=(), dtype=jnp.float32
    norm: jax.Array  # shape=(), dtype=jnp.float32
    square: jax.Array  # shape=(), dtype=jnp.float32


class StableSpamState(NamedTuple):
    """State of ``stable_spam``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    since: jax.Array  # shape=(), dtype=jnp.int32, steps since the last reset
    sizes: tuple[OfLeaf, ...]
    mu: tuple[jax.Array, ...]
    nu: tuple[jax.Array, ...]
    tally: Tally


def stable_spam(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    gamma1: float = 0.7,
    gamma2: float = 0.9,
    theta: float = 0.999,
    reset_every: int = 1000,
) -> optax.GradientTransformation:
    """Take Adam's step on gradients normalized by their largest entry and their norm.

    All defaults are those of the authors' class (their scripts reset every 500 steps), and so is
    the behavior at a reset. One counter serves all bias corrections and is set back to 1 for all of
    them, so that the limit on entries, which is not reset, is up to 1000 times too high. The reset
    step itself is still taken from the old moments, corrected as if they were new, and its gradient
    is forgotten.

    With a NaN, as published: the three sizes of the leaf are NaN forever, no entry is above a limit
    of NaN, and every later gradient of the leaf is NaN. A reset does not help, since the sizes are
    not reset.

    Source:
      Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam", 2025,
      arXiv:2502.17055; code: github.com/TianjinYellow/StableSPAM.
    """

    def init(params: Any) -> StableSpamState:
        leaves = jax.tree.leaves(params)
        zero, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        zeros = tuple(jnp.zeros_like(leaf) for leaf in leaves)
        sizes = tuple(OfLeaf(zero, zero, zero) for _ in leaves)
        return StableSpamState(count, count, sizes, zeros, zeros, new_tally())

    def normalize(g: jax.Array, old: OfLeaf, t: jax.Array) -> tuple[jax.Array, OfLeaf]:
        peak = jnp.max(jnp.abs(g))
        largest = theta * old.largest + (1.0 - theta) * peak
        limit = largest / (1.0 - theta**t)
        g = jnp.where(jnp.abs(g) > limit, g / peak * limit, g)
        size = jnp.sqrt(jnp.sum(g * g))
        norm = gamma1 * old.norm + (1.0 - gamma1) * size
        square = gamma2 * old.square + (1.0 - gamma2) * size * size
        wanted = norm / (1.0 - gamma1**t) / (jnp.sqrt(square / (1.0 - gamma2**t)) + eps)
        scaled = jnp.where(size > 0, g / jnp.where(size > 0, size, 1.0) * wanted, g)
        return scaled, OfLeaf(largest, norm, square)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, StableSpamState]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        count, since = state.count + 1, state.since + 1
        now = since.astype(jnp.float32)
        pairs = [normalize(g, old, now) for g, old in zip(leaves, state.sizes, strict=True)]
        reset = count % reset_every == 0
        since = jnp.where(reset, 1, since)
        t = since.astype(jnp.float32)
        pull = list(zip(pairs, state.mu, state.nu, strict=True))
        mu = [b1 * m + (1.0 - b1) * g for (g, _), m, _ in pull]
        nu = [b2 * v + (1.0 - b2) * g * g for (g, _), _, v in pull]
        rate = schedule(state.count) / (1.0 - b1**t)
        root = jnp.sqrt(1.0 - b2**t)
        moved = [-rate * m / (jnp.sqrt(v) / root + eps) for m, v in zip(mu, nu, strict=True)]
        left_mu, left_nu = (
            tuple(jnp.where(reset, jnp.zeros_like(x), x) for x in moments) for moments in (mu, nu)
        )
        sizes = tuple(size for _, size in pairs)
        tally = tell(state.tally, jnp.asarray(True))
        return jax.tree.unflatten(structure, moved), StableSpamState(
            count, since, sizes, left_mu, left_nu, tally
        )

    return optax.GradientTransformation(init, update)
