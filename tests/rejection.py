"""A broken step through a guarded transform, which must change nothing."""

import chex
import jax
import jax.numpy as jnp
import optax

import gradstable as gs


def assert_rejected_step_changes_no_bit(tx: optax.GradientTransformation, size: int) -> None:
    params = jnp.linspace(-1.0, 1.0, size)
    update = jax.jit(tx.update)
    _, state = update(jnp.cos(jnp.arange(size) * 1.0), tx.init(params), params)
    _, new = update(jnp.ones(size).at[7].set(jnp.nan), state, params)
    assert int(gs.health(new).rejected) == 1
    chex.assert_trees_all_equal(new.inner_state, state.inner_state)
