"""Both training loops of Flax: the guard works in them, and health is read from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import gradstable as gs
from tests.bits import bits


class Net(nnx.Module):
    """Two layers, so that paths have two parts."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.first(x)))


@nnx.jit
def train(model: Net, optimizer: nnx.Optimizer, batch: jax.Array) -> None:
    gradients = nnx.grad(lambda model: jnp.mean(model(batch) ** 2))(model)
    optimizer.update(model, gradients)


@pytest.fixture
def batch(rng: np.random.Generator) -> jax.Array:
    return jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)


def made(tx: optax.GradientTransformation) -> tuple[Net, nnx.Optimizer]:
    model = Net(nnx.Rngs(0))
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


OPTIMIZERS = {"guard": gs.guard(optax.adamw(1e-2)), "adamw": gs.adamw(1e-2)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nan_batch_leaves_an_nnx_model_bit_identical(name: str, batch: jax.Array) -> None:
    model, optimizer = made(OPTIMIZERS[name])
    train(model, optimizer, batch)
    before = bits(nnx.state(model, nnx.Param)), bits(optimizer.opt_state.inner_state)
    train(model, optimizer, batch.at[0, 0].set(jnp.nan))
    after = bits(nnx.state(model, nnx.Param)), bits(optimizer.opt_state.inner_state)
    assert after == before
    train(model, optimizer, batch)
    assert bits(nnx.state(model, nnx.Param)) != before[0]


def test_health_reads_the_nnx_optimizer_and_its_state(batch: jax.Array) -> None:
    model, optimizer = made(gs.guard(optax.adamw(1e-2)))
    train(model, optimizer, batch)
    train(model, optimizer, batch * jnp.inf)
    for what in (optimizer, optimizer.opt_state):
        health = gs.health(what)
        assert (int(health.count), int(health.accepted), int(health.rejected)) == (2, 1, 1)
        assert isinstance(health.count, jax.Array)


def test_health_can_be_read_inside_nnx_jit(batch: jax.Array) -> None:
    model, optimizer = made(gs.guard(optax.adamw(1e-2)))

    @nnx.jit
    def step(model: Net, optimizer: nnx.Optimizer) -> gs.Health:
        gradients = nnx.grad(lambda model: jnp.mean(model(batch) ** 2))(model)
        optimizer.update(model, gradients)
        return gs.health(optimizer)

    assert int(step(model, optimizer).accepted) == 1


def test_explain_names_the_leaf_of_an_nnx_model(batch: jax.Array) -> None:
    model, optimizer = made(gs.guard(optax.sgd(1e-2)))
    gradients = nnx.grad(lambda model: jnp.mean(model(batch) ** 2))(model)
    gradients["head"]["kernel"][...] = jnp.full((4, 2), jnp.nan)
    optimizer.update(model, gradients)
    for what in (optimizer, optimizer.opt_state):
        told = gs.explain(what, nnx.state(model, nnx.Param))
        assert "1 rejected because the gradient had NaN or infinite entries." in told
        assert told.endswith("first in ['head']['kernel'].")
        assert ".value" not in told


def test_check_raises_for_an_nnx_optimizer_that_only_rejects(batch: jax.Array) -> None:
    model, optimizer = made(gs.guard(optax.sgd(1e-2)))
    for _ in range(3):
        train(model, optimizer, batch * jnp.nan)
    gs.check(optimizer, patience=4)
    with pytest.raises(gs.TrainingDiverged, match="last 3 steps were all rejected"):
        gs.check(optimizer, nnx.state(model, nnx.Param), patience=3)


def test_nnx_optimizer_forwards_keywords_to_rules_and_inner(batch: jax.Array) -> None:
    seen: dict[str, set[str]] = {}

    def decide(measure: gs.Measure, state: Any, **context: Any) -> tuple[gs.Verdict, Any]:
        seen["rule"] = set(context)
        return gs.Verdict.of(), state

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        seen["inner"] = set(extra_args)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    rule = gs.rules.Rule(init=lambda params: (), decide=decide)
    model, optimizer = made(gs.guard(inner, rule))
    gradients = nnx.grad(lambda model: jnp.mean(model(batch) ** 2))(model)
    optimizer.update(model, gradients, value=jnp.asarray(1.0))
    assert seen == {"rule": {"params", "value"}, "inner": {"value"}}


@pytest.fixture
def train_state(batch: jax.Array) -> TrainState:
    model = linen.Dense(2)
    params = model.init(jax.random.key(0), batch)["params"]
    tx = gs.guard(optax.adamw(1e-2))
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def linen_step(state: TrainState, batch: jax.Array) -> TrainState:
    def loss(params: Any) -> jax.Array:
        return jnp.mean(state.apply_fn({"params": params}, batch) ** 2)

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def test_nan_batch_leaves_a_train_state_bit_identical(
    train_state: TrainState, batch: jax.Array
) -> None:
    good = linen_step(train_state, batch)
    held = linen_step(good, batch * jnp.nan)
    assert bits(held.params) == bits(good.params)
    assert bits(held.opt_state.inner_state) == bits(good.opt_state.inner_state)
    assert bits(linen_step(held, batch).params) == bits(linen_step(good, batch).params)


def test_health_and_explain_read_the_train_state(train_state: TrainState, batch: jax.Array) -> None:
    state = linen_step(linen_step(train_state, batch), batch * jnp.nan)
    for what in (state, state.opt_state):
        assert int(gs.health(what).rejected) == 1
        assert gs.explain(what, state.params).endswith("first in ['bias'].")
