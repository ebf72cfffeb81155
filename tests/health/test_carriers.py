"""What keeps a NaN in front of the guard is found and named, and the advice works."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import gradstable as gs

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2)}
BAD = {**PARAMS, "b": jnp.full(2, jnp.nan)}
GUARD = gs.guard(optax.sgd(0.1))
MULTI = optax.MultiSteps(GUARD, 2).gradient_transformation()


def after(tx: Any, *gradients: Any) -> Any:
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for gradient in gradients:
        _, state = update(gradient, state, PARAMS)
    return state


@functools.cache
def poisoned() -> Any:
    return after(MULTI, PARAMS, BAD, *[PARAMS] * 4)


def test_a_poisoned_mean_is_named_with_its_cure() -> None:
    told = gs.explain(poisoned(), PARAMS)
    assert "opt_state.acc_grads of optax.MultiSteps has a NaN or an infinity in ['b']." in told
    assert "Use gradstable.accumulate(gradstable.guard(optimizer), k) instead" in told


def test_check_does_not_wait_for_what_never_ends() -> None:
    with pytest.raises(
        gs.TrainingDiverged, match=r"optax\.MultiSteps has accumulated a NaN"
    ) as caught:
        gs.check(poisoned(), PARAMS)
    assert "gradstable.accumulate(" in str(caught.value)


def test_sound_means_are_not_mentioned() -> None:
    state = MULTI.init(PARAMS)
    gs.check(state, PARAMS)
    assert "MultiSteps" not in gs.explain(state, PARAMS)


def test_the_advice_to_go_on_from_the_state_works() -> None:
    zeros = optax.tree.zeros_like(optax.tree.get(poisoned(), "acc_grads"))
    state = optax.tree.set(poisoned(), acc_grads=zeros)
    gs.check(state, PARAMS)
    for _ in range(2):
        updates, state = MULTI.update(PARAMS, state, PARAMS)
    assert gs.health(state).consecutive_rejected == 0
    assert updates["b"].tolist() == pytest.approx([-0.1, -0.1])


@pytest.mark.parametrize(
    "tx",
    [
        gs.accumulate(GUARD, 2),
        gs.guard(MULTI),
        optax.MultiSteps(
            GUARD, 2, should_skip_update_fn=optax.skip_not_finite
        ).gradient_transformation(),
        optax.chain(gs.clipping.clip_by(), MULTI),
    ],
    ids=["accumulate", "guard around", "skip_not_finite", "a judge before"],
)
def test_the_cures_of_the_docs_work(tx: Any) -> None:
    state = after(tx, PARAMS, BAD, *[PARAMS] * 4)
    gs.check(state, PARAMS, patience=1)
    assert "MultiSteps" not in gs.explain(state, PARAMS)


def test_a_trainer_that_wraps_what_it_is_given() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.MultiSteps(GUARD, 2), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    bad = jax.tree.map(lambda g: g * jnp.nan, grads)
    for gradient in (bad, grads, grads):
        optimizer.update(model, gradient)
    told = gs.explain(optimizer, nnx.state(model))
    assert ".acc_grads of optax.MultiSteps has a NaN or an infinity in ['bias']." in told
    with pytest.raises(gs.TrainingDiverged, match="MultiSteps"):
        gs.check(optimizer)


def test_one_poisoned_member_is_named() -> None:
    sound = MULTI.init(PARAMS)
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), sound, poisoned())
    with pytest.raises(gs.TrainingDiverged, match=r"member 1 of 2: optax\.MultiSteps"):
        gs.check(state)
    assert gs.explain(state).count("acc_grads of optax.MultiSteps") == 1


def test_where_only_the_guard_is_seen_the_cause_is_named_as_likely() -> None:
    inner = poisoned().inner_opt_state
    assert "MultiSteps" not in gs.explain(inner)  # two rejections may be bad batches
    state = after(GUARD, PARAMS, *[BAD] * 20)
    assert "optax.MultiSteps around a guard keeps it forever" in gs.explain(state)


def test_other_averages_in_front_of_the_guard_are_named() -> None:
    told = gs.explain(after(optax.chain(optax.trace(0.9), GUARD), PARAMS, BAD, PARAMS), PARAMS)
    assert "opt_state[0].trace, outside the guard, has a NaN or an infinity in ['b']." in told
    assert "around the whole chain" in told
