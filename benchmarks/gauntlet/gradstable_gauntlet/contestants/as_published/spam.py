"""SPAM, as published."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestant import Schedule
from gradstable_gauntlet.contestants.as_published.common import Tally, new_tally, tell


class SpamState(NamedTuple):
    """State of ``spam``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    mu: Any  # like params
    nu: Any  # like params
    tally: Tally


def spam(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    threshold: float = 5000.0,
    reset_every: int = 500,
    warmup: int = 150,
    wait: int = 20,
) -> optax.GradientTransformation:
    """Take Adam's step with entries clipped by the second moment, which is reset periodically.

    All defaults are those of the authors' class, without weight decay, and dense.

    With a NaN, as published: it is not above any threshold and enters the moments, which are NaN
    until the next reset. The parameters are NaN forever.

    Source:
      Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
      arXiv:2501.06842; code: github.com/TianjinYellow/SPAM-Optimizer.
    """

    def init(params: Any) -> SpamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SpamState(jnp.zeros((), jnp.int32), zeros, zeros, new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SpamState]:
        del params
        count = state.count + 1
        phase = count % reset_every
        old = jax.tree.map(
            lambda x: jnp.where(phase == 0, jnp.zeros_like(x), x), (state.mu, state.nu)
        )
        armed = (count >= wait) & (phase >= wait)
        spikes = jax.tree.map(lambda g, v: armed & (g * g > threshold * v), updates, old[1])
        clipped = jax.tree.map(
            lambda g, v, spike: jnp.where(spike, jnp.sign(g) * jnp.sqrt(v * threshold), g),
            updates,
            old[1],
            spikes,
        )
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, old[0], clipped)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, old[1], clipped)
        t = count.astype(jnp.float32)
        rate = schedule(state.count) * jnp.sqrt(1.0 - b2**t) / (1.0 - b1**t)
        rate *= jnp.where(count < reset_every, 1.0, _warm_up(phase, warmup))
        moved = jax.tree.map(lambda m, v: -rate * (m / (jnp.sqrt(v) + eps)), mu, nu)
        touched = jnp.any(jnp.stack([spike.any() for spike in jax.tree.leaves(spikes)]))
        return moved, SpamState(count, mu, nu, tell(state.tally, touched))

    return optax.GradientTransformation(init, update)


def _warm_up(steps: jax.Array, warmup: int) -> jax.Array:
    angle = math.pi * steps.astype(jnp.float32) / (warmup + 1)
    return jnp.where(steps < warmup, 1.0 - 0.99 * (1.0 + jnp.cos(angle)) / 2.0, 1.0)
