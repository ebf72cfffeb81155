"""Values that break: whether they come out of nothing, or at the end of an explosion."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.doctor import diagnose
from tests.doctor.expected import RUNS
from tests.doctor.parts import cut


def test_a_slow_explosion_is_not_blamed_on_the_data(tmp_path: Path) -> None:
    # The loss grows by a tenth in each step, for 900 of them, until it overflows.
    params = {"w": jnp.ones(4)}
    tx = gs.record(optax.sgd(2.05), capacity=1024)

    def loss_fn(params: optax.Params) -> jax.Array:
        return jnp.sum(params["w"] ** 2) / 2

    @jax.jit
    def train(params: optax.Params, state: optax.OptState) -> optax.OptState:
        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            loss, gradients = jax.value_and_grad(loss_fn)(params)
            updates, state = tx.update(gradients, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), None, length=1000)[0][1]

    with gs.telemetry.Log(params, tmp_path / "run.jsonl") as log:
        log(state := tx.init(params))
        log(train(params, state))
    found = diagnose(gs.telemetry.read_run(tmp_path / "run.jsonl"))
    assert [one.name for one in found] == ["learning_rate_too_high", "diverged"]


@pytest.mark.parametrize(("every", "found"), [(1000, "healthy"), (150, "gradient_overflows")])
def test_a_loss_scale_may_overflow_now_and_then(every: int, found: str) -> None:
    # The gradients of a healthy run over and over, of which some overflow and are rejected.
    one = gs.telemetry.read_run(RUNS / "small_batch.jsonl")
    columns = {
        name: np.tile(getattr(one, name)[60:], 50) for name in ("loss", "grad_norm", "scale")
    }
    columns["grad_norm"][every - 10 :: every] = np.inf
    columns["scale"][every - 10 :: every] = 0.0
    run = dataclasses.replace(
        cut(one, np.arange(3000) % 120),
        step=np.arange(1, 3001),
        config={"compute_dtype": "float16"},
        **columns,
    )
    assert [one.name for one in diagnose(run)] == [found]


def test_what_is_broken_where_the_record_begins_may_have_been_announced() -> None:
    # A record that begins in the middle of a run, and one with a hole before what is broken.
    whole = gs.telemetry.read_run(RUNS / "missing_value_bare.jsonl")
    broken = int(np.flatnonzero(~np.isfinite(whole.loss))[0])
    for kept in (slice(broken, None), np.arange(len(whole.step)) != broken - 1):
        found = [one.name for one in diagnose(cut(whole, kept))]
        assert "diverged" in found
        assert "broken_loss" not in found
