"""Whole training runs inside one compiled program, over many seeds and rates in parallel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.claims.models import Model


class Run(NamedTuple):
    """The result of one training run."""

    held_out: jax.Array  # shape=(), at the end; inf if it is not finite
    finite: jax.Array  # shape=(), bool: parameters and state
    losses: jax.Array  # shape=(steps,)


def train(
    model: Model,
    tx: optax.GradientTransformation,
    start: Any,
    key: jax.Array,
    steps: int,
    *,
    corrupt: Callable[[Any, jax.Array], Any] | None = None,
) -> Run:
    """Train from ``start``; ``corrupt`` gets every gradient, and its own key."""
    tx = optax.with_extra_args_support(tx)

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        loss, gradient = jax.value_and_grad(model.loss)(params, key)
        if corrupt is not None:
            gradient = corrupt(gradient, jax.random.fold_in(key, 1))
        updates, state = tx.update(gradient, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, steps))
    sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
    held_out = model.held_out(params)
    return Run(jnp.where(jnp.isfinite(held_out), held_out, jnp.inf), sound, losses)


def keys_of(seeds: int) -> tuple[jax.Array, jax.Array]:
    """Return one key for the initialization, and one for the data, of each seed."""
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.arange(seeds))
    return pairs[:, 0], pairs[:, 1]
