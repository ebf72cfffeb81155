"""The report of an autopsy, on models of several libraries and on broken arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import gradstable as gs

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


class Block(linen.Module):
    """A dense layer and a logarithm."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.log(linen.Dense(4, name="proj")(x) - 1e3)


class Net(linen.Module):
    """Two layers, of which the second breaks."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Block(name="second")(linen.Dense(4, name="first")(x))


def test_flax_modules_are_named() -> None:
    net = Net()
    variables: Any = net.init(jax.random.key(0), X)
    found = gs.autopsy(lambda v, x: jnp.mean(net.apply(v, x)), variables, X)
    assert found.cause is not None
    assert found.cause.scope.endswith("Net/second")
    assert found.cause.leaf.startswith("['params']['second']['proj']")
    assert "jnp.log" in found.cause.code


def test_nnx() -> None:
    graph, params = nnx.split(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sqrt(nnx.merge(graph, params)(x) - 1e3))

    found = gs.autopsy(loss, params, X)
    assert found.cause is not None
    assert found.cause.operation == "sqrt"


def test_the_report_of_one_bad_example() -> None:
    def loss_fn(params: Any, batch: Any) -> tuple[jax.Array, str]:
        rate = jnp.exp(batch["x"] @ params["w"])
        return jnp.mean(rate - batch["y"] * jnp.log(rate)), "aux"

    batch = {"x": X.at[4].set(300.0), "y": jnp.ones((6, 2))}
    found = gs.autopsy(loss_fn, {"w": jnp.ones((4, 2))}, batch, has_aux=True)
    lines = str(found).splitlines()
    assert lines[0] == "The loss is nan, and 1 gradient is not finite (['w'])." or "inf" in lines[0]
    assert f"{__file__}:" in lines[1]
    assert lines[1].endswith("in loss_fn:")
    assert lines[2].strip() == 'rate = jnp.exp(batch["x"] @ params["w"])'
    assert lines[3].strip() == "operation exp"
    assert lines[4].startswith("  input   float32[6,2], from ")
    assert "2 infinite" in lines[5]
    assert lines[6] == "  reason: overflow: the largest float32 is 3.40282e+38"
    assert lines[7:] == ["  nearest parameters: ['w']", "  example: 4"]


def test_a_broken_argument_is_told() -> None:
    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((batch["x"] @ params) ** 2)

    found = gs.autopsy(loss, jnp.ones((4, 2)), {"x": X.at[2, 1].set(jnp.nan)})
    assert found.cause is not None
    assert found.cause.argument == "args[0]['x']"
    assert found.cause.examples == (2,)
    assert "args[0]['x'] was not finite to begin with" in str(found)
    found = gs.autopsy(loss, jnp.full((4, 2), jnp.inf), {"x": X})
    assert found.cause is not None
    assert found.cause.argument == "params"


def test_the_examples_are_found_by_bisection_where_no_axis_shows_them() -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.exp(jnp.sum(jnp.where(x > 50.0, x * w, 0.0)))

    found = gs.autopsy(loss, jnp.ones(()), jnp.asarray([1.0, 2.0, 100.0, 3.0, 200.0, 0.0, 1.0]))
    assert found.cause is not None
    assert found.cause.examples == (2, 4)
    found = gs.autopsy(loss, jnp.ones(()), jnp.asarray([100.0, 2.0]), batch_axis=None)
    assert found.cause is not None
    assert found.cause.examples == ()


def test_a_rejected_step_can_be_examined_afterwards() -> None:
    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sqrt(x @ params["w"]))

    tx = gs.guard(optax.adam(1e-3))
    params = {"w": jnp.ones((4, 1))}
    state = tx.init(params)
    for x in (jnp.abs(X), X, jnp.abs(X)):
        before = params
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        params = optax.apply_updates(params, updates)
        if int(gs.health(state).consecutive_rejected):
            found = gs.autopsy(loss, before, x)
            assert found.cause is not None
            assert found.cause.operation == "sqrt"
    assert int(gs.health(state).rejected) == 1


def test_it_is_refused_inside_jit() -> None:
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda w: gs.autopsy(lambda w: w.sum(), w).loss)(jnp.ones(2))


def test_where_numpy_does_not_see_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = gs.autopsy(lambda w, x: jnp.mean(jnp.log(x @ w)), jnp.ones(4), X.at[2].set(-1.0))
    assert found.cause is not None
    assert found.cause.operation == "log"
