"""Of a finite gradient, the examples and the leaves that it comes from are named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs

PARAMS = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)


def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum((x @ params["w"] + params["b"]) ** 2, axis=-1))


def spike_of(*args: Any, **options: Any) -> gs.Spike:
    found = gs.autopsy(*args, **options)
    assert found.cause is None
    assert found.spike is not None
    return found.spike


def test_norms_and_shares_are_those_of_the_gradients() -> None:
    found = spike_of(loss, PARAMS, X)
    whole = jax.grad(loss)(PARAMS, X)
    each = [jax.grad(loss)(PARAMS, X[i : i + 1]) for i in range(16)]
    square = sum(float(jnp.vdot(g, g)) for g in whole.values())
    parts = [sum(float(jnp.vdot(g[n], whole[n])) for n in whole) / 16 / square for g in each]
    assert found.norm == pytest.approx(square**0.5, rel=1e-5)
    np.testing.assert_allclose(found.example_norms, list(map(gs.global_norm, each)), rtol=1e-5)
    np.testing.assert_allclose(found.example_shares, parts, rtol=1e-4, atol=1e-6)
    assert sum(found.example_shares) == pytest.approx(1.0)
    assert found.leaf_norms["['w']"] == pytest.approx(float(gs.global_norm(whole["w"])), rel=1e-5)
    assert sum(found.leaf_shares.values()) == pytest.approx(1.0)


def test_the_fewest_examples_and_leaves_that_explain_it() -> None:
    found = spike_of(loss, PARAMS, X.at[7].mul(1e3).at[11].mul(1e3))
    assert sorted(found.examples) == [7, 11]
    assert found.leaves == ("['w']",)
    of_all = spike_of(loss, PARAMS, jnp.ones_like(X))
    assert len(of_all.examples) == 15  # of 16 that are the same, 90 %
    sum_of_all = spike_of(lambda p, x: 16.0 * loss(p, x), PARAMS, X.at[3].mul(1e3))
    assert sum_of_all.examples == (3,)


def test_the_report_is_short() -> None:
    lines = str(gs.autopsy(loss, PARAMS, X.at[7].mul(1e3))).splitlines()
    assert lines[0].endswith("and all gradients are finite.")
    assert lines[1].startswith("The gradient norm is ")
    assert "100 % of its square is from 1 of 16 examples: 7 (norm" in lines[2]
    assert "is in 1 of 2 leaves: ['w']" in lines[3]
    assert len(lines) == 4


def test_only_leaves_where_the_examples_are_not_known() -> None:
    assert spike_of(loss, PARAMS, X, batch_axis=None).examples == ()
    two = spike_of(lambda p, x, y: loss(p, x) + loss(p, y), PARAMS, X, X[:5])
    assert two.example_norms == ()
    assert two.leaves == ("['w']",)


def test_another_axis() -> None:
    found = spike_of(lambda p, x: loss(p, x.T), PARAMS, X.T.at[:, 5].mul(1e3), batch_axis=1)
    assert found.examples == (5,)


def test_a_loss_that_fails_on_a_single_example_is_not_run_on_one() -> None:
    def whole_batches(params: Any, x: jax.Array) -> jax.Array:
        if len(x) != 16:
            raise ZeroDivisionError
        return loss(params, x)

    found = spike_of(whole_batches, PARAMS, X)
    assert found.example_norms == ()
    assert found.leaves


def test_an_example_without_a_gradient_of_its_own_is_left_out() -> None:
    def logs(params: Any, x: jax.Array) -> jax.Array:
        total = jnp.sum((x @ params["w"]) ** 2)
        return jnp.log(total)

    found = spike_of(logs, PARAMS, X.at[2].set(0.0))
    assert np.flatnonzero(np.isnan(found.example_norms)).tolist() == [2]
    assert found.example_shares[2] == 0.0


def test_examples_of_a_loss_on_eight_devices() -> None:
    mesh = Mesh(np.asarray(jax.devices()), ("data",))

    def on_all(params: Any, x: jax.Array) -> jax.Array:
        def body(params: Any, x: jax.Array) -> jax.Array:
            return jax.lax.pmean(loss(params, x), "data")

        return jax.shard_map(body, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())(params, x)

    batch = X.at[7].mul(1e3)
    found, wanted = spike_of(on_all, PARAMS, batch), spike_of(loss, PARAMS, batch)
    np.testing.assert_allclose(found.example_norms, wanted.example_norms, rtol=1e-5)
    assert found.examples == (7,)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_examples_of_a_batch_that_is_split_over_devices(kind: AxisType) -> None:
    mesh = Mesh(np.asarray(jax.devices()), ("data",), axis_types=(kind,))
    batch = jax.device_put(X.at[7].mul(1e3), NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        assert spike_of(loss, PARAMS, batch).examples == (7,)


def test_huge_and_zero_gradients() -> None:
    found = spike_of(loss, PARAMS, 1e12 * X)
    assert np.isfinite(found.norm)
    assert found.leaves == ("['w']",)
    assert found.examples
    zero = spike_of(loss, jax.tree.map(jnp.zeros_like, PARAMS), X)
    assert zero == (0.0, {"['b']": 0.0, "['w']": 0.0}, {"['b']": 0.0, "['w']": 0.0}, (), (), (), ())
