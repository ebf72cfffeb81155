"""Adam that low precision and large gradients cannot break."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.moments.running import directions
from tests.oracles.adam import adam as oracle


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"b2": 0.95},
        {"b1": 0.0},
        {"eps": 1e-3, "eps_root": 1e-4},
        {"nesterov": True},
        {"b1": 0.95, "b2": 0.95},
    ],
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    gradients = (rng.normal(size=(200, 6)) * np.logspace(-6, 6, 6)).astype(np.float32)
    got = directions(gs.moments.scale_by_adam(**options), gradients)
    np.testing.assert_allclose(got, oracle(gradients, **options), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_optax_on_healthy_float32(nesterov: bool) -> None:
    gradients = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    ours = directions(gs.moments.scale_by_adam(nesterov=nesterov), gradients)
    theirs = directions(optax.scale_by_adam(nesterov=nesterov), gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_pitfall_fp16_eps_does_not_vanish() -> None:
    got = directions(gs.moments.scale_by_adam(), np.asarray([[0.0, 1e-5, 1.0, 300.0]], np.float16))
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, [[0.0, 1.0, 1.0, 1.0]], rtol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spike", [1e19, 1e20, 3e38, -3e38])
def test_pitfall_a_large_gradient_does_not_freeze_the_weight(spike: float, dtype: str) -> None:
    """optax's nu becomes inf at 1e20, and the weight never moves again."""
    gradients = np.ones((3000, 1), np.float32)
    gradients[10] = spike
    tx = gs.moments.scale_by_adam(b2=0.9)
    got = directions(tx, gradients.astype(jnp.dtype(dtype))).astype(np.float64)
    assert np.isfinite(got).all()
    assert np.abs(got).max() <= 1.5
    np.testing.assert_allclose(got[-1], 1.0, rtol=0.02)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pitfall_a_non_finite_entry_leaves_its_moments_alone(bad: float, nesterov: bool) -> None:
    tx = gs.moments.scale_by_adam(nesterov=nesterov)
    g = jnp.asarray([1.0, 2.0])
    _, before = tx.update(g, tx.init(g))
    updates, after = tx.update(g.at[0].set(bad), before)
    assert (jnp.abs(updates) <= 1.5).all()
    assert after.mu[0] == before.mu[0]
    assert after.nu[0] == before.nu[0]
    assert after.nu[1] != before.nu[1]


def test_pitfall_bf16_second_moment_does_not_stall() -> None:
    gradients = np.concatenate([np.ones((3000, 1)), np.full((3000, 1), 0.01)])
    got = directions(gs.moments.scale_by_adam(), gradients.astype(jnp.bfloat16)).astype(np.float64)
    np.testing.assert_allclose(got[2999], 1.0, rtol=0.01)
    assert got[-1] > 0.04, "a stalled nu would keep 0.01 / 1"


def test_pitfall_b2_that_rounds_to_one() -> None:
    """0.999 in bfloat16 is 1.0: optax gives NaN at step 1. A traced value cannot raise."""
    params = jnp.ones(3, jnp.bfloat16)
    tx = optax.inject_hyperparams(gs.adamw)(1e-3)
    state = jax.jit(tx.init)(params)
    for _ in range(5):
        updates, state = jax.jit(tx.update)(params, state, params)
        params = optax.apply_updates(params, updates)
    assert np.isfinite(np.asarray(params, np.float32)).all()
    assert (np.abs(np.asarray(updates, np.float32)) < 0.1).all()


@pytest.mark.parametrize("eps", [0.0, 1e-40, 1e-60])
def test_pitfall_a_subnormal_eps_is_zero_to_the_compiler(eps: float) -> None:
    got = directions(gs.moments.scale_by_adam(eps=eps), np.asarray([[0.0, 1.0]], np.float32))
    np.testing.assert_allclose(got, [[0.0, 1.0]], rtol=1e-5)


def test_state_dtypes() -> None:
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}
    state = gs.moments.scale_by_adam().init(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.mu, state.nu))} == {jnp.dtype("float32")}
    state = gs.moments.scale_by_adam(mu_dtype=jnp.bfloat16, nu_dtype=jnp.float16).init(params)
    assert state.mu["a"].dtype == jnp.bfloat16
    assert state.nu["b"].dtype == jnp.float16


def test_fp16_state_saturates() -> None:
    tx = gs.moments.scale_by_adam(mu_dtype=jnp.float16, nu_dtype=jnp.float16)
    g = jnp.full((2,), 1e6)
    state = tx.init(g)
    for _ in range(3):
        updates, state = tx.update(g, state)
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), state))
    assert jnp.isfinite(updates).all()


def test_adamw_equals_optax_on_a_healthy_run() -> None:
    rng = np.random.default_rng(3)
    params = theirs = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.ones(3)}
    mask = {"w": True, "b": False}
    options = {"weight_decay": 0.1, "mask": mask, "b2": 0.95}
    schedule = optax.linear_schedule(0.0, 1e-2, 10)
    tx, reference = gs.adamw(schedule, **options), optax.adamw(schedule, **options)
    state, other = tx.init(params), reference.init(theirs)
    for _ in range(30):
        g = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        updates, other = reference.update(g, other, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert gs.health(state).accepted == 30
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), params, theirs
    )
