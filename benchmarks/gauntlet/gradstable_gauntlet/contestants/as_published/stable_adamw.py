"""StableAdamW, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestant import Schedule
from gradstable_gauntlet.contestants.as_published.common import Tally, new_tally, tell


class StableAdamWState(NamedTuple):
    """State of ``stable_adamw``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    mu: Any  # like params
    nu: Any  # like params
    tally: Tally


def stable_adamw(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-8,
    max_rms: float = 1.0,
    weight_decay: float = 1e-4,
) -> optax.GradientTransformation:
    """Take AdamW's step, shortened in each leaf whose gradient has outgrown its second moment.

    This follows the first author's code, which decays by the full rate, while the paper decays by
    the shortened one. The published decay of 0.2 is for CLIP; this one is optax's, as for the
    others.

    With a NaN, as published: moments and parameters of the leaf are NaN forever. (The code skips
    such a leaf only if it divides by its own fixed loss scale.)

    Source:
      Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
      2023, arXiv:2304.13013, algorithm 2, and ``StableAdamWUnfused`` of its first author.
    """

    def init(params: Any) -> StableAdamWState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return StableAdamWState(jnp.zeros((), jnp.int32), zeros, zeros, new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, StableAdamWState]:
        count = state.count + 1
        keep1, keep2 = _debiased(b1, count), _debiased(b2, count)
        mu = jax.tree.map(lambda m, g: keep1 * m + (1.0 - keep1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: keep2 * v + (1.0 - keep2) * g * g, state.nu, updates)
        rms = jax.tree.map(
            lambda v, g: jnp.sqrt(jnp.mean(g * g / jnp.maximum(v, eps**2))), nu, updates
        )
        rate = jnp.asarray(schedule(state.count))

        def step(p: jax.Array, m: jax.Array, v: jax.Array, r: jax.Array) -> jax.Array:
            shortened = rate / jnp.maximum(1.0, r / max_rms)
            return -rate * weight_decay * p - shortened * m / (jnp.sqrt(v) + eps)

        touched = jnp.any(jnp.stack(jax.tree.leaves(rms)) > max_rms)
        moved = jax.tree.map(step, params, mu, nu, rms)
        return moved, StableAdamWState(count, mu, nu, tell(state.tally, touched))

    return optax.GradientTransformation(init, update)


def _debiased(decay: float, count: jax.Array) -> jax.Array:
    t = count.astype(jnp.float32)
    return decay * (1.0 - decay ** (t - 1.0)) / (1.0 - decay**t)
