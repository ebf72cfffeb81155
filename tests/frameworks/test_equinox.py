"""Equinox: the model is the tree of parameters, once what is no array has been filtered out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.bits import bits
from tests.frameworks.trouble import assert_held, assert_logged, batches, is_finite, protected

eqx: Any = pytest.importorskip("equinox")

pytestmark = pytest.mark.slow


def train(
    model: Any, tx: optax.GradientTransformationExtraArgs, batches: Iterable[Any], path: Path
) -> tuple[Any, optax.OptState]:
    @eqx.filter_jit
    def train_step(model: Any, opt_state: optax.OptState, x: Any, y: Any) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        loss, gradients = eqx.filter_value_and_grad(loss_fn)(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
        return eqx.apply_updates(model, updates), opt_state, loss

    params = eqx.filter(model, eqx.is_inexact_array)
    opt_state = tx.init(params)
    with gs.watch(tx, params, path, report=False) as watch:
        for x, y in batches:
            model, opt_state, loss = train_step(model, opt_state, x, y)
            watch(opt_state, eqx.filter(model, eqx.is_inexact_array), loss=loss)
    return model, opt_state


def network() -> Any:
    return eqx.nn.MLP(3, 1, width_size=16, depth=1, key=jax.random.key(0))


def loss_of(model: Any) -> float:
    x, y = batches()[0]
    return float(jnp.mean((jax.vmap(model)(x) - y) ** 2))


def test_a_model_with_functions_in_it_survives(tmp_path: Path) -> None:
    model, opt_state = train(network(), protected(), batches(), tmp_path / "run.jsonl")
    assert_held(opt_state)
    assert_logged(tmp_path / "run.jsonl")
    assert loss_of(model) < 0.5 * loss_of(network())


def test_without_the_guard_it_does_not(tmp_path: Path) -> None:
    model, _ = train(network(), optax.adam(1e-2), batches(), tmp_path / "run.jsonl")
    assert not is_finite(eqx.filter(model, eqx.is_inexact_array))


def test_the_state_is_saved_and_read_back(tmp_path: Path) -> None:
    tx = protected()
    _, opt_state = train(network(), tx, batches()[:130], tmp_path / "run.jsonl")
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", opt_state)
    like = tx.init(eqx.filter(network(), eqx.is_inexact_array))
    read = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", like)
    assert bits(read) == bits(opt_state)
    assert int(gs.health(read).rejected) == 1
