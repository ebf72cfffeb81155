"""The protections of optax, around the same AdamW."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.contestants.bare import adamw
from gradstable_gauntlet.find import find_all


def clip(schedule: Schedule) -> optax.GradientTransformation:
    """Return AdamW behind a limit on the global norm."""
    return optax.chain(optax.clip_by_global_norm(1.0), adamw(schedule))


def adaptive_clip(schedule: Schedule) -> optax.GradientTransformation:
    """Return AdamW behind adaptive gradient clipping."""
    return optax.chain(optax.adaptive_grad_clip(0.01), adamw(schedule))


def if_finite(schedule: Schedule) -> optax.GradientTransformation:
    """Return clipped AdamW that skips up to five non-finite gradients in a row."""
    return optax.apply_if_finite(clip(schedule), max_consecutive_errors=5)


def above_one(state: Any, norms: jax.Array) -> jax.Array:
    """Return how many norms a limit of 1 has changed; NaN counts as changed."""
    del state
    return jnp.sum(~(norms < 1.0))


def skipped_or_above_one(state: Any, norms: jax.Array) -> jax.Array:
    """Return how many gradients were not finite, plus how many others had a norm above 1."""
    [wrapper] = find_all(state, optax.ApplyIfFiniteState)
    return wrapper.total_notfinite + jnp.sum(jnp.isfinite(norms) & (norms >= 1.0))


CHAINS = {
    "clip": Contestant(
        clip, "optax.clip_by_global_norm(1) before AdamW", base="adamw", touched=above_one
    ),
    "agc": Contestant(adaptive_clip, "optax.adaptive_grad_clip(0.01) before AdamW", base="adamw"),
    "apply_if_finite": Contestant(
        if_finite,
        "optax.apply_if_finite around a clip to 1 and AdamW; gives up after 5",
        base="adamw",
        touched=skipped_or_above_one,
    ),
}
