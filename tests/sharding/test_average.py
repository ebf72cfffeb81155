"""The mean over devices, and whose gradient stands out."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import gradstable as gs

PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros((), jnp.bfloat16), "none": None}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def gradients(params: Any, x: jax.Array) -> Any:
    def loss(params: Any) -> jax.Array:
        return jnp.mean((x @ params["w"] + params["b"].astype(jnp.float32) - 1.0) ** 2)

    return jax.value_and_grad(loss)(jax.lax.pcast(params, "data", to="varying"))


def stepper(
    tx: Any, mesh: Mesh, *, check_vma: bool = True, mean: bool = False, value: bool = True
) -> Callable[..., Any]:
    def step(params: Any, state: Any, x: jax.Array) -> Any:
        loss, gradient = gradients(params, x)
        if mean:
            loss, gradient = jax.lax.pmean((loss, gradient), "data")
        given = {"value": loss} if value else {}
        updates, state = tx.update(gradient, state, params, **given)
        return optax.apply_updates(params, updates), state

    specs = {"in_specs": (P(), P(), P("data")), "out_specs": P()}
    return jax.jit(jax.shard_map(step, mesh=mesh, check_vma=check_vma, **specs))


def batches(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 32, 3)).astype(np.float32)


def run(step: Any, tx: Any, batches: np.ndarray) -> tuple[Any, Any]:
    params, state = PARAMS, tx.init(PARAMS)
    for x in batches:
        params, state = step(params, state, jnp.asarray(x))
    return params, state


@pytest.mark.parametrize("check_vma", [True, False])
def test_sound_gradients_give_the_bits_of_pmean(mesh: Mesh, check_vma: bool) -> None:
    inner = gs.guard(optax.adam(0.1))
    ours = gs.sharding.average(inner, "data")
    got, state = run(stepper(ours, mesh, check_vma=check_vma), ours, batches(5))
    wanted, held = run(stepper(inner, mesh, mean=True), inner, batches(5))
    chex.assert_trees_all_equal(got, wanted)
    chex.assert_trees_all_equal(state.wrapped_state, held)
    assert (int(state.calls), int(state.left_out)) == (5, 0)


@pytest.mark.parametrize("at", [0, 3, 7])
def test_device_with_a_spike_is_named(mesh: Mesh, at: int) -> None:
    tx = gs.sharding.average(gs.record(gs.guard(optax.sgd(0.1))), "data")
    given = batches(20)
    given[17, 4 * at + 1] = 1e4
    step = stepper(tx, mesh)
    params, state = (
        PARAMS,
        jax.jit(jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=P()))(PARAMS),
    )
    for x in given:
        params, state = step(params, state, jnp.asarray(x))
    assert f"device {at} of 0 to 7 stood out: its gradient norm was" in gs.explain(state)
    rows = gs.telemetry.read_rows(state).steps
    assert [row["device"] for row in rows] == [-1] * 17 + [at] + [-1] * 2
    assert rows[17]["scale"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_gradient_of_one_device_costs_only_its_share(mesh: Mesh, bad: float) -> None:
    tx = gs.sharding.average(gs.guard(optax.sgd(0.1)), "data")
    given = batches(1)
    others = np.delete(given[0].reshape(8, 4, 3), 2, axis=0)
    given[0, 4 * 2 + 1, 0] = bad
    got, state = run(stepper(tx, mesh), tx, given)
    wanted = np.mean([-2 * 0.1 * part.T @ (0 - np.ones(4)) / 4 for part in others], axis=0)
    np.testing.assert_allclose(got["w"], wanted, rtol=1e-5, atol=1e-6)
    assert int(gs.health(state).accepted) == 1
    told = "1 gradient of a single device was left out of the mean because it was broken, the last"
    assert f"{told} that of device 2." in gs.explain(state)


def test_loss_that_is_not_finite_counts_as_broken(mesh: Mesh) -> None:
    tx = gs.sharding.average(gs.guard(optax.sgd(0.1)), "data")

    def step(state: Any, x: jax.Array) -> Any:
        index = jax.lax.axis_index("data")
        loss = jnp.where(index == 4, jnp.nan, 1.0)
        return tx.update({"w": x}, state, value=loss)

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    updates, state = jax.jit(mapped)(tx.init({"w": jnp.zeros(2)}), jnp.ones(16))
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)
    assert int(state.left_out_last) == 4


def test_if_all_are_broken_the_guard_rejects(mesh: Mesh) -> None:
    tx = gs.sharding.average(gs.guard(optax.sgd(0.1)), "data")
    given = np.full_like(batches(1), np.nan)
    got, state = run(stepper(tx, mesh), tx, given)
    chex.assert_trees_all_equal(got, PARAMS)
    assert int(gs.health(state).rejected) == 1
    assert "stood out" not in gs.explain(state)


def test_if_no_device_stands_out_it_says_so(mesh: Mesh) -> None:
    tx = gs.sharding.average(gs.guard(optax.sgd(0.1)), "data")
    given = batches(20)
    given[18] *= 1e4
    _, state = run(stepper(tx, mesh), tx, given)
    assert "none of 8 devices stood out" in gs.explain(state)


def test_leaves_may_be_split_over_another_axis() -> None:
    """The norm of a device's gradient is that of all its parts."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    inner = gs.guard(optax.sgd(1.0), axis_name="model")
    tx = gs.sharding.average(inner, "data", axis_name="model")
    g = jnp.ones((4, 6)).at[2].set(jnp.array([30.0, 0, 0, 40.0, 0, 0]))

    def step(state: Any, g: jax.Array) -> Any:
        return tx.update({"w": g[0]}, state)

    state = tx.init({"w": jnp.zeros(6)})
    specs = {"w": P("model")}
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P("data", "model")), out_specs=(specs, P())
    )
    updates, state = jax.jit(mapped)(state, g)
    np.testing.assert_allclose(updates["w"], -np.mean(g, axis=0), rtol=1e-6)
    assert int(state.outliers.present.outlier) == 2
    np.testing.assert_allclose(state.outliers.present.highest_norm, 50.0, rtol=1e-6)


def test_outside_of_shard_map_there_is_nothing_to_average() -> None:
    inner = gs.guard(optax.adam(0.1))
    tx = gs.sharding.average(inner, "data")
    g = {"w": jnp.ones(3)}
    got = tx.update(g, tx.init(g), g)
    wanted = inner.update(g, inner.init(g), g)
    chex.assert_trees_all_equal((got[0], got[1].wrapped_state), wanted)


def test_pitfall_a_gradient_that_jax_has_summed_is_refused_with_the_remedy(mesh: Mesh) -> None:
    tx = gs.sharding.average(optax.sgd(0.1), "data")

    def step(x: jax.Array) -> Any:
        gradient = jax.grad(lambda w: jnp.mean(x @ w))(jnp.zeros(3))
        return tx.update(gradient, tx.init(gradient))[0]

    mapped = jax.shard_map(step, mesh=mesh, in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match=r"jax\.lax\.pcast\(params, 'data', to='varying'\)"):
        mapped(jnp.ones((8, 3)))


def test_unknown_axis_is_told_with_those_there_are(mesh: Mesh) -> None:
    tx = gs.sharding.average(optax.sgd(0.1), "batch")
    mapped = jax.shard_map(
        lambda g: tx.update(g, tx.init(g))[0], mesh=mesh, in_specs=P("data"), out_specs=P("data")
    )
    with pytest.raises(ValueError, match=r"'batch'; the axes here are \('data',\)"):
        mapped(jnp.ones(8))


@pytest.mark.parametrize("over", [None, (), 3, ("data", 1)], ids=str)
def test_what_names_no_axis_is_refused(over: Any) -> None:
    with pytest.raises(TypeError, match="over must be"):
        gs.sharding.average(optax.sgd(0.1), over)
