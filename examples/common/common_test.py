"""Faults do what they say, and the comparison survives a contestant that dies."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradstable as gs
from examples.common import faults
from examples.common.compare import Outcome, compare, make_tx, outcome
from examples.common.config import CommonConfig
from examples.common.contestants import contestant
from examples.common.records import open_log, run_file


class Batch(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    label: np.ndarray


class Text(NamedTuple):
    token: np.ndarray


@pytest.fixture
def batch() -> Batch:
    return Batch(np.ones((4, 3), np.float32), np.ones(4, np.float32), np.arange(4))


def test_bad_batch_is_amplified_twice_and_then_loses_one_entry(batch: Batch) -> None:
    seen = [faults.spoil(batch, step=step, fault="bad-batch", at=2) for step in range(1, 6)]
    assert seen[0] is batch
    assert seen[4] is batch
    for one in seen[1:3]:
        assert (one.x == 1e4).all()
        assert one.x.dtype == np.float32
    assert np.isnan(seen[3].x).sum() == 1
    assert all((one.label == batch.label).all() for one in seen)
    assert (batch.x == 1).all()


def test_bad_batch_hits_only_the_fields_that_are_named(batch: Batch) -> None:
    spoilt = faults.spoil(batch, step=2, fault="bad-batch", at=2, fields=["weight"])
    assert (spoilt.weight == 1e4).all()
    assert (spoilt.x == 1).all()


def test_bad_batch_without_floating_fields_says_so() -> None:
    text = Text(np.arange(3))
    assert faults.spoil(text, step=2, fault="none", at=2) is text
    with pytest.raises(ValueError, match="no floating array in the batch: it has token"):
        faults.spoil(text, step=2, fault="bad-batch", at=2)


def test_rate_is_spiked_for_twenty_steps_counted_from_one() -> None:
    schedule = optax.constant_schedule(0.5)
    assert faults.spike(schedule, fault="none", at=10) is schedule
    spiked = faults.spike(schedule, fault="lr-spike", at=10)
    rates = [np.asarray(spiked(jnp.asarray(count))).item() for count in range(40)]
    assert [i + 1 for i, rate in enumerate(rates) if rate == 50.0] == list(range(10, 30))
    assert set(rates) == {0.5, 50.0}


def test_only_matrices_explode() -> None:
    model, same = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    model.bias = nnx.Param(jnp.ones(2))
    kernel = np.asarray(model.kernel[...])
    faults.explode(model, fault="exploding-init", factor=5.0)
    np.testing.assert_allclose(model.kernel[...], 5.0 * kernel)
    np.testing.assert_array_equal(cast("Any", model.bias)[...], 1.0)
    faults.explode(same, fault="none", factor=5.0)
    np.testing.assert_array_equal(same.kernel[...], kernel)


def half_loss(params: Any, x: jax.Array) -> jax.Array:
    product = params["w"].astype(jnp.float16) * x.astype(jnp.float16)
    return 0.125 * jnp.sum(product.astype(jnp.float32))


@pytest.mark.parametrize("has_aux", [False, True])
def test_loss_scale_is_taken_back(has_aux: bool) -> None:
    def loss_fn(params: Any, x: jax.Array) -> Any:
        loss = half_loss(params, x)
        return (loss, x) if has_aux else loss

    grad_fn = faults.value_and_grad(
        loss_fn, fault="fp16", has_aux=has_aux, transform=jax.value_and_grad
    )
    result, gradient = grad_fn({"w": jnp.full(2, 0.5)}, jnp.full(2, 2.0))
    assert float(result[0] if has_aux else result) == 0.25
    assert gradient["w"].tolist() == [0.25, 0.25]
    assert gradient["w"].dtype == jnp.float32


def test_gradient_overflows_above_65504_over_the_scale() -> None:
    params, x = {"w": jnp.full(2, 0.5)}, jnp.asarray([7.9, 8.1])
    half = faults.value_and_grad(half_loss, fault="fp16", transform=jax.value_and_grad)
    assert np.isfinite(half(params, x)[1]["w"]).tolist() == [True, False]
    lower = faults.value_and_grad(
        half_loss, fault="fp16", scale=2.0**14, transform=jax.value_and_grad
    )
    assert np.isfinite(lower(params, x)[1]["w"]).all()


def test_ours_neither_exceeds_the_peak_nor_forgets_the_guard() -> None:
    config = CommonConfig(learning_rate=0.1, fault="lr-spike", fault_at=1, weight_decay=0.0)
    params = jnp.full(3, 100.0)
    moved = {}
    for name in ("bare", "ours"):
        tx = make_tx(config, optax.constant_schedule(0.1), name)
        updates, state = jax.jit(tx.update)(jnp.ones(3), tx.init(params), params)
        moved[name] = float(jnp.max(jnp.abs(cast("jax.Array", updates))))
    assert moved["bare"] == pytest.approx(10.0, rel=1e-3)
    assert moved["ours"] == pytest.approx(0.1, rel=1e-3)
    assert int(gs.health(state).accepted) == 1


def test_without_faults_ours_takes_the_steps_of_adamw_with_its_b2() -> None:
    schedule = optax.warmup_cosine_decay_schedule(5e-3, 1e-2, 5, 20)
    ours = contestant("ours", schedule, peak=1e-2, weight_decay=1e-4)
    adamw = optax.adamw(schedule, b2=0.95, weight_decay=1e-4)
    params = jnp.linspace(1.0, 2.0, 7)
    state, other = ours.init(params), adamw.init(params)
    update, update_other = jax.jit(ours.update), jax.jit(adamw.update)
    for step in range(20):
        gradient = jnp.sin(params + step)
        mine, state = update(gradient, state, params)
        theirs, other = update_other(gradient, other, params)
        np.testing.assert_allclose(cast("Any", mine), cast("Any", theirs), rtol=1e-4, atol=1e-7)


def fit(config: CommonConfig, tx: optax.GradientTransformation, name: str) -> Outcome:
    tx = optax.with_extra_args_support(tx)
    params = {"w": jnp.ones(3)}
    state, losses, update = tx.init(params), [], jax.jit(tx.update)
    with open_log(config, params, name) as log:
        for step in range(1, config.steps + 1):
            x = jnp.full(3, jnp.nan if step == config.fault_at else 1.0)
            loss = jnp.sum((params["w"] * x) ** 2)
            updates, state = update({"w": 2 * params["w"] * x}, state, params, value=loss)
            params = cast("Any", optax.apply_updates(params, updates))
            losses.append(loss)
            log(state)
    return outcome(losses, metric=params["w"][0], metric_name="w", opt_state=state, params=params)


def test_comparison_survives_and_tells_and_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CommonConfig(steps=6, fault_at=4, workdir=tmp_path)
    outcomes = compare(config, fit, schedule=optax.constant_schedule(0.1))
    assert list(outcomes) == ["bare", "ours"]
    assert np.isnan(outcomes["bare"].losses[-1])
    assert np.isfinite(outcomes["ours"].losses[-1])
    assert (outcomes["ours"].rejected, outcomes["bare"].rejected) == (1, 0)
    assert outcomes["bare"].explanation == ""
    told = capsys.readouterr().out
    assert "6 steps: 5 accepted" in told
    assert "['w']" in told
    for name in ("bare", "ours"):
        run = gs.telemetry.read_run(run_file(config, name))
        assert run.ended
        assert run.name == name
        assert list(run.step) == [1, 2, 3, 4, 5, 6]
        assert run.config["learning_rate"] == config.learning_rate
    assert f"gradstable report --compare {run_file(config, 'bare')}" in told.replace("\n", "")


def test_one_contestant_can_run_alone(tmp_path: Path) -> None:
    config = CommonConfig(steps=2, workdir=tmp_path, optimizer="ours")
    assert list(compare(config, fit, schedule=optax.constant_schedule(0.1))) == ["ours"]
