"""Gradient centralization on the axes of Flax, and what it cannot do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.centering.running import apply


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) + 1.0, jnp.float32)


def test_vectors_and_scalars_are_left_alone_also_in_stacks() -> None:
    g: dict[str, Any] = {"bias": normal(3), "number": jnp.asarray(2.0)}
    g["layers"] = {"bias": normal(4, 3), "norm": {"scale": normal(4, 3)}}
    updates = apply(gs.centering.centralize(), g)
    jax.tree.map(np.testing.assert_array_equal, updates, g)


def test_pitfall_optax_centralizes_the_transposed_leaf() -> None:
    """optax's mean is that of one input over all outputs, in Flax; of one output in PyTorch."""
    kernel = normal(5, 3)
    ours = apply(gs.centering.centralize(), {"kernel": kernel})
    theirs = apply(optax.centralize(), {"kernel": kernel})
    np.testing.assert_allclose(ours["kernel"].sum(axis=0), 0.0, atol=1e-6)
    assert np.abs(theirs["kernel"].sum(axis=0)).min() > 0.1
    transposed = apply(optax.centralize(), {"kernel": kernel.T})
    np.testing.assert_allclose(ours["kernel"], transposed["kernel"].T, atol=1e-6)


def test_pitfall_optax_overflows_and_spreads_a_nan() -> None:
    largest = jnp.full((4, 2), 3.4e38)
    theirs = apply(optax.centralize(), largest.T)
    assert not np.isfinite(theirs).any()
    ours = apply(gs.centering.centralize(), largest)
    np.testing.assert_allclose(ours, 0.0, atol=1e32)


def test_pitfall_float16_means_do_not_overflow() -> None:
    kernel = jnp.full((64, 2), 60_000.0, jnp.float16).at[0].set(0.0)
    updates = apply(gs.centering.centralize(), {"kernel": kernel})
    np.testing.assert_allclose(updates["kernel"][0], -59_062.5, rtol=1e-3)
    both = jnp.asarray([[60_000.0], [60_000.0], [-60_000.0], [60_000.0]], jnp.float16)
    updates = apply(gs.centering.centralize(), {"kernel": both})
    assert updates["kernel"][2] == -65_504.0, "the difference is -90000, which float16 has not"


def test_the_sum_of_the_weights_of_a_neuron_stays() -> None:
    params = {"kernel": normal(6, 3)}
    tx = optax.chain(gs.centering.centralize(), optax.sgd(0.5))
    state, update = tx.init(params), jax.jit(tx.update)
    start = params["kernel"].sum(axis=0)
    for seed in range(5):
        updates, state = update({"kernel": normal(6, 3, seed=seed)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"].sum(axis=0), start, rtol=1e-5)


def test_weakness_a_direction_common_to_all_inputs_is_never_learned() -> None:
    x, kernel = jnp.ones((8, 4)), jnp.ones((4, 1))
    g = jax.grad(lambda kernel: jnp.mean((x @ kernel - 1.0) ** 2))(kernel)
    assert (g == 6.0).all()
    updates = apply(gs.centering.centralize(), g)
    assert not updates.any()
