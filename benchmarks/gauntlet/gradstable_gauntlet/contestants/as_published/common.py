"""Shared by the published methods: norms as in torch, and a count of touched steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable_gauntlet.find import find_all


class Tally(NamedTuple):
    """How many steps a method clipped, normalized or skipped."""

    steps: jax.Array  # shape=(), dtype=jnp.int32


def new_tally() -> Tally:
    """Return a tally of no steps."""
    return Tally(jnp.zeros((), jnp.int32))


def tell(tally: Tally, touched: jax.Array) -> Tally:
    """Return the tally after one more step."""
    return Tally(tally.steps + jnp.asarray(touched, jnp.int32))


def tallied(state: Any, norms: jax.Array) -> jax.Array:
    """Return how many steps were touched, from the tally in an optimizer state."""
    del norms
    return sum((tally.steps for tally in find_all(state, Tally)), jnp.zeros((), jnp.int32))


def leaf_norms(updates: Any) -> jax.Array:
    """Return the norm of each leaf (float32 ``[L]``); squares overflow, as in torch."""
    return jnp.stack([jnp.sqrt(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(updates)])


def clip_coefficient(norm: jax.Array, limit: jax.Array | float) -> jax.Array:
    """Return the factor of torch's ``clip_grad_norm_``; NaN where the norm or the limit is NaN."""
    return jnp.minimum(limit / (norm + 1e-6), 1.0)


def scale_leaves(updates: Any, factors: jax.Array) -> Any:
    """Return each leaf times its own factor (``[L]``)."""
    leaves, structure = jax.tree.flatten(updates)
    scaled = [leaf * factor for leaf, factor in zip(leaves, factors, strict=True)]
    return jax.tree.unflatten(structure, scaled)


def python_min(first: jax.Array, second: jax.Array | float) -> jax.Array:
    """Return Python's ``min(first, second)``, which is NaN only if the first one is."""
    return jnp.where(second < first, second, first)
