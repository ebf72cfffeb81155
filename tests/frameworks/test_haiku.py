"""Haiku: parameters and the state of the network are two trees, and the guard sees one of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.frameworks.trouble import (
    NAN_AT,
    assert_held,
    assert_logged,
    batches,
    is_finite,
    protected,
)

hk: Any = pytest.importorskip("haiku")

pytestmark = pytest.mark.slow


def network(x: jax.Array) -> jax.Array:
    hidden = hk.Linear(16)(x)
    hidden = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(hidden, True)
    return hk.Linear(1)(jnp.tanh(hidden))


def train(
    tx: optax.GradientTransformationExtraArgs,
    batches: Iterable[Any],
    path: Path,
    *,
    takes_all: bool = False,
) -> tuple[Any, Any, optax.OptState]:
    model = hk.without_apply_rng(hk.transform_with_state(network))

    @jax.jit
    def train_step(params: Any, averages: Any, opt_state: optax.OptState, x: Any, y: Any) -> Any:
        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            out, new_averages = model.apply(params, averages, x)
            return jnp.mean((out - y) ** 2), new_averages

        (loss, new_averages), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradients, opt_state, params, value=loss)
        if not takes_all:  # the averages of a rejected batch stay out
            accepted = gs.health(opt_state).scale > 0
            new_averages = jax.tree.map(
                lambda new, old: jnp.where(accepted, new, old), new_averages, averages
            )
        return optax.apply_updates(params, updates), new_averages, opt_state

    batches = list(batches)
    params, averages = model.init(jax.random.key(0), batches[0][0])
    opt_state = tx.init(params)
    with gs.watch(tx, params, path, report=False) as watch:
        for x, y in batches:
            params, averages, opt_state = train_step(params, averages, opt_state, x, y)
            watch(opt_state, params)
    return params, averages, opt_state


def test_parameters_and_averages_survive(tmp_path: Path) -> None:
    params, averages, opt_state = train(protected(), batches(), tmp_path / "run.jsonl")
    assert is_finite((params, averages))
    # Batch norm divides the large batch by its own size: its gradient is like any other.
    assert_logged(tmp_path / "run.jsonl", rejected=[NAN_AT])
    assert_held(opt_state, rejected=[NAN_AT])


def test_without_the_select_the_averages_do_not(tmp_path: Path) -> None:
    ran = train(protected(), batches(), tmp_path / "run.jsonl", takes_all=True)
    assert is_finite(ran[0])
    assert not is_finite(ran[1])


def test_without_the_guard_nothing_does(tmp_path: Path) -> None:
    tx = gs.record(optax.adam(1e-2))
    params, _, _ = train(tx, batches(), tmp_path / "run.jsonl", takes_all=True)
    assert not is_finite(params)
