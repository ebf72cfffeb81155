"""A leaf is named by what the guard saw, or it is said that nobody knows its name."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import gradstable as gs

PARAMS = {"a_base": jnp.ones(3), "lora": jnp.ones(2), "z_head": jnp.ones((2, 2))}
BAD = {**PARAMS, "lora": jnp.full(2, jnp.nan)}
ONLY_LORA = {"a_base": False, "lora": True, "z_head": False}
LABELS = {"a_base": "frozen", "lora": "trained", "z_head": "frozen"}
GUARD = gs.guard(optax.sgd(0.1))

NESTINGS = {
    "masked": optax.masked(GUARD, ONLY_LORA),
    "masked twice": optax.masked(optax.masked(GUARD, ONLY_LORA), ONLY_LORA),
    "masked, by a function": optax.masked(GUARD, lambda _: ONLY_LORA),
    "partition around": optax.partition({"frozen": optax.set_to_zero(), "trained": GUARD}, LABELS),
    "partition, two guards": optax.partition({"frozen": GUARD, "trained": GUARD}, LABELS),
    "partition inside": gs.guard(
        optax.partition({"frozen": optax.set_to_zero(), "trained": optax.sgd(0.1)}, LABELS)
    ),
    "a chain of judges": optax.masked(
        optax.chain(gs.clipping.clip_by_global_norm(1.0), GUARD), ONLY_LORA
    ),
    "wrapped": optax.masked(gs.backoff(gs.rollback(GUARD)), ONLY_LORA),
    "recorded": gs.record(optax.masked(GUARD, ONLY_LORA)),
    "behind a mask, recorded": optax.masked(gs.record(GUARD), ONLY_LORA),
}  # fmt: skip


def after(tx: Any, *gradients: Any, params: Any = PARAMS) -> Any:
    state = tx.init(params)
    for gradient in gradients:
        _, state = tx.update(gradient, state, params, value=1.0)
    return state


@pytest.mark.parametrize("nesting", NESTINGS)
def test_the_broken_leaf_is_named(nesting: str) -> None:
    told = gs.explain(after(optax.with_extra_args_support(NESTINGS[nesting]), BAD), PARAMS)
    assert "first in ['lora']." in told
    assert "a_base" not in told


def test_leaves_without_a_gradient_do_not_shift_the_names() -> None:
    state = after(GUARD, {**BAD, "a_base": None})
    assert "first in ['lora']." in gs.explain(state, PARAMS)
    state = after(GUARD, {**PARAMS, "a_base": None, "z_head": jnp.full((2, 2), jnp.inf)})
    assert "first in ['z_head']." in gs.explain(state, PARAMS)


def test_a_mismatch_is_said_and_no_leaf_is_named() -> None:
    state = after(GUARD, BAD)
    told = gs.explain(state, {"x": 1.0, "y": 1.0, "z": 1.0})
    assert "first in leaf 1 of those that the guard saw (no leaf of params has its path)." in told
    with pytest.raises(gs.TrainingDiverged, match="no leaf of params has its path"):
        gs.check(state, {"x": 1.0}, patience=1)


def test_a_recorder_knows_the_names_by_itself() -> None:
    assert "first in ['lora']." in gs.explain(after(gs.record(GUARD), BAD))


def test_a_large_leaf_of_a_spike_is_named() -> None:
    tx = optax.masked(gs.guard(optax.sgd(0.1), gs.rules.ema_multiple(max_multiple=3.0)), ONLY_LORA)
    spike = {**PARAMS, "lora": jnp.full(2, 1e4)}
    assert "largest in ['lora']." in gs.explain(after(tx, spike), PARAMS)


class Adapted(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.adapter = nnx.LoRA(2, 1, 2, rngs=rngs)
        self.base = nnx.Linear(2, 2, rngs=rngs)


@pytest.mark.parametrize("names", ["state", "model", "plain"])
def test_adapters_of_nnx(names: str) -> None:
    model = Adapted(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, GUARD, wrt=nnx.LoRAParam)
    grads = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.LoRAParam))
    grads["adapter"]["lora_b"] = jax.tree.map(lambda g: g * jnp.nan, grads["adapter"]["lora_b"])
    optimizer.update(model, grads)
    state = nnx.state(model)
    known = {"state": state, "model": model, "plain": nnx.to_pure_dict(state)}[names]
    told = gs.explain(optimizer, known)
    assert "lora_b" in told
    assert "no leaf" not in told


def test_no_leaves_no_name() -> None:
    never = gs.rules.Rule(lambda _: (), lambda m, s, **_: (gs.Verdict.of(accept=False), s))
    state = after(gs.guard(optax.sgd(0.1), never), {}, params={})
    assert "leaf" not in gs.explain(state, PARAMS)
