"""Entries of updates, computed without the updates, are those of the updates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.spot import run_and_take
from gradstable._src.rate.glance import Glance
from tests.registry import Case, entries

CASES = [case for entry in entries() for case in entry.cases]


def take(leaf: jax.Array) -> jax.Array:
    return leaf[tuple(slice(None, None, 2) for _ in leaf.shape)]


def some(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (6, 8), "bias": (8,), "stack": (3, 4, 5), "scale": ()}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_entries_are_those_of_the_updates(case: Case) -> None:
    params, tx = some(0), optax.with_extra_args_support(case.tx)
    state = tx.init(params)

    @jax.jit
    def step(updates: Any, state: Any) -> Any:
        return run_and_take(tx.update, take, updates, state, params)

    for seed in (1, 2):
        stepped, state, taken = step(some(seed), state)
        for one, leaf in zip(taken, jax.tree.leaves(stepped), strict=True):
            # The rounding of a product of matrices depends on what is fused with it.
            size = float(jnp.max(jnp.abs(leaf)))
            np.testing.assert_allclose(one, take(leaf), rtol=1e-5, atol=1e-4 * size)


def test_functions_that_are_called_are_looked_into() -> None:
    @jax.jit
    def inside(g: jax.Array, rate: jax.Array) -> jax.Array:
        return jnp.where(g > 0, -rate * jnp.sqrt(jnp.abs(g)), jnp.zeros_like(g))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda g: inside(g, jnp.float32(0.1)), updates), state

    def run(g: Any) -> Any:
        _, _, taken = run_and_take(update, take, {"w": g}, (), None)
        return taken

    text = str(jax.make_jaxpr(run)(jnp.ones((64, 64))).jaxpr.eqns)
    # The root is taken of the entries, after they are taken.
    assert "f32[32,32] = sqrt" in text


def test_what_is_not_elementwise_is_taken_from_its_result() -> None:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda g: jnp.cumsum(g, axis=0) / 3.0, updates), state

    g = some(3)["kernel"]
    stepped, _, taken = jax.jit(lambda g: run_and_take(update, take, g, (), None))(g)
    np.testing.assert_allclose(taken[0], take(stepped), rtol=1e-6)


def test_a_sample_estimates_the_inner_products_of_large_trees() -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (300, 500), "b": (1000, 700), "c": (77,)}
    g, u = (
        {name: jnp.asarray(rng.normal(size=s) + 0.3, jnp.float32) for name, s in shapes.items()}
        for _ in range(2)
    )
    glance = Glance(g)
    one, other = glance.vector(g), glance.vector(u)
    assert one.size < 20_000
    estimated = glance.products([(one, other), (one, one)], None)
    exact = [sum(jnp.vdot(g[name], x[name]) for name in shapes) for x in (u, g)]
    np.testing.assert_allclose(np.asarray(estimated), np.asarray(exact), rtol=0.05)


def test_the_trust_region_of_a_large_model_is_that_of_all_its_entries() -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=(400, 500)), jnp.float32)
    tx = gs.govern(optax.sgd(1.0))
    updates, _ = jax.jit(tx.update)(10.0 * params, tx.init(params), params)
    ratio = float(jnp.linalg.norm(updates) / jnp.linalg.norm(params))
    assert ratio == pytest.approx(0.01, rel=0.02)
