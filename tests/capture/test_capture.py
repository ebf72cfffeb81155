"""Every bad step is captured with its own batch, and with exact parameters where it says so."""

import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.capture.runs import (
    GUARDED,
    PARAMS,
    RECORDED,
    STEPS,
    UPDATE,
    batch_of,
    read_all,
    run,
    stepper,
)


@pytest.mark.parametrize("every", [1, 3, 16])
def test_every_bad_step_is_found_with_its_own_batch(every: int, tmp_path: Path) -> None:
    bad = (2, 7, 8, 20, 31)
    with gs.capture(tmp_path / "deep" / "bad", every=every) as capture:
        run(capture, steps=37, bad=bad)
    found = read_all(capture)
    # The fifth is one more of the same series.
    assert tuple(found) == bad[:4]
    for step, one in found.items():
        wanted = batch_of(step, bad=True)
        assert one.kind == "rejected"
        assert one.batch["name"] == wanted["name"]
        assert np.array_equal(one.batch["x"], wanted["x"], equal_nan=True)
        assert np.array_equal(
            jax.random.key_data(one.rng), jax.random.key_data(jax.random.key(step))
        )
        assert one.reason == "the gradient had NaN or infinite entries"
        assert np.isnan(one.numbers["loss"])
        assert "accepted" in one.info["explanation"]
    if every == 1:
        assert all(one.exact for one in found.values())


def test_exact_parameters_and_state_are_those_that_the_step_began_with(tmp_path: Path) -> None:
    with gs.capture(tmp_path, every=5) as capture:
        _, _, before = run(capture, steps=20, bad=(3, 9, 10, 20))
    found = read_all(capture)
    assert {step: one.exact for step, one in found.items()} == {
        3: False,
        9: True,
        10: True,
        20: True,
    }
    assert (found[3].later, found[9].later) == (2, 1)
    for step in (9, 10, 20):
        params, state = before[step]
        chex.assert_trees_all_equal(found[step].params, params)
        inner = found[step].opt_state.wrapped_state.wrapped_state
        chex.assert_trees_all_equal(inner, state.wrapped_state.wrapped_state)
    assert "those that it began with" in str(found[9])
    assert "2 steps later" in str(found[3])


def test_a_captured_step_runs_again_to_the_bit(tmp_path: Path) -> None:
    with gs.capture(tmp_path, every=1) as capture:
        params, state, _ = run(capture, steps=5, bad=(5,))
    one = gs.read_capture(capture.folders[0])
    again = STEPS["recorded"](one.params, one.opt_state, one.batch["x"])
    live = STEPS["recorded"](params, state, batch_of(5, bad=True)["x"])
    chex.assert_trees_all_equal(again, live)


def test_without_a_recorder_the_last_rejected_step_is_known(tmp_path: Path) -> None:
    with gs.capture(tmp_path, every=8) as capture:
        run(capture, steps=16, bad=(3, 5, 14, 15, 16), kind="guarded")
    found = read_all(capture)
    assert list(found) == [5, 14, 15, 16]
    assert found[16].exact
    assert found[14].exact
    assert "NaN" in found[16].reason
    assert "gs.record" in found[14].reason


def test_hard_clips_are_kept_by_the_factor(tmp_path: Path) -> None:
    guarded = gs.guard(optax.adam(1e-2), gs.rules.global_norm(20.0))
    recorded = gs.record(guarded)
    steps = {tx: stepper(tx) for tx in (guarded, recorded)}
    for tx, clipped_below, wanted in (
        (recorded, 0.1, [38]), (recorded, 0.0, []), (guarded, 0.1, [40]),
    ):  # fmt: skip
        step, params, state = steps[tx], PARAMS, tx.init(PARAMS)
        with gs.capture(tmp_path, every=4, clipped_below=clipped_below) as capture:
            for number in range(1, 45):
                # Without a recorder, only the last step before a reading is known.
                scale = 100.0 if number == (wanted or [38])[0] else 2.0 if number == 20 else 1.0
                batch = batch_of(number, scale=scale)
                params, state = step(params, state, batch["x"])
                capture(state, batch, params=params)
        found = read_all(capture)
        assert [number for number, one in found.items() if one.kind == "clipped"] == wanted
        for one in found.values():
            assert one.batch["id"] == one.step
            assert 0 < one.numbers["scale"] < 0.1
            assert not one.exact
            assert one.reason == "the gradient norm was above the fixed limit"


def test_a_rollback_is_the_sign_of_a_divergence(tmp_path: Path) -> None:
    tx = gs.rollback(optax.sgd(0.1), every=4, patience=2)
    step = stepper(tx)
    params, state = PARAMS, tx.init(PARAMS)
    with gs.capture(tmp_path, every=4) as capture:
        for number in range(1, 41):
            batch = batch_of(number, scale=100.0 if number > 20 else 1.0)
            params, state = step(params, state, batch["x"])
            capture(state, batch, params=params, step=number)
    kinds = {gs.read_capture(folder).kind for folder in capture.folders}
    assert "diverging" in kinds


def test_an_early_warning_is_a_sign_of_a_divergence(tmp_path: Path) -> None:
    quiet = {"embed": jnp.ones((16, 16)), "head": jnp.ones(16)}
    tx = gs.record(optax.adam(1e-3))
    state, update = tx.init(quiet), jax.jit(tx.update)
    with gs.capture(tmp_path) as capture:
        for step in range(1, 131):
            noise = jax.random.normal(jax.random.key(step), (16, 16))
            grads = {"embed": noise * (8.0 if step > 120 else 1.0), "head": noise[0]}
            _, state = update(grads, state, quiet)
            capture(state, grads, params=quiet)
    one = gs.read_capture(capture.folders[0])
    assert (one.kind, one.step) == ("diverging", 121)
    assert "the second moment lagged behind" in one.reason
    assert one.numbers["rms"] > 2


def test_a_run_that_is_resumed_does_not_report_what_was_before(tmp_path: Path) -> None:
    with gs.capture(tmp_path / "a", every=4) as capture:
        _, state, _ = run(capture, steps=9, bad=(4,))
    for kind in ("recorded", "guarded"):
        state = state if kind == "recorded" else state.wrapped_state
        with gs.capture(tmp_path / kind, every=4) as capture:
            run(capture, steps=6, bad=(12,), state=state, first=10, kind=kind)
        assert list(read_all(capture)) == [12]


def test_several_steps_in_a_call_share_a_batch(tmp_path: Path) -> None:
    @jax.jit
    def scanned(carry: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda c, x: (STEPS["recorded"](*c, x), None), carry, xs)[0]

    carry = PARAMS, RECORDED.init(PARAMS)
    with gs.capture(tmp_path, every=2) as capture:
        for call in range(6):
            xs = np.ones((4, 2, 3), np.float32)
            xs[2] = np.nan if call == 3 else 1.0
            carry = scanned(carry, xs)
            capture(carry[1], {"x": xs, "call": call}, params=carry[0])
    one = gs.read_capture(capture.folders[0])
    assert (one.step, one.batch["call"], one.exact) == (15, 3, False)


@pytest.mark.parametrize("every", [3, 6])
def test_several_calls_for_a_step_are_kept_together(every: int, tmp_path: Path) -> None:
    # The guard sees means of three micro-batches, of which the middle one is too large.
    tx = optax.MultiSteps(gs.guard(optax.sgd(0.1)), 3)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    with gs.capture(tmp_path, every=every) as capture:
        for call in range(1, 13):
            bad = jax.tree.map(lambda p: jnp.full_like(p, 1e30 if call == 8 else 1.0), PARAMS)  # noqa: B023
            _, state = update(bad, state, PARAMS)
            capture(state, call)
    one = gs.read_capture(capture.folders[0])
    assert one.batch == [7, 8, 9]


def test_members_of_vmap(tmp_path: Path) -> None:
    guarded = gs.guard(optax.sgd(0.1))
    for tx in (guarded, gs.record(guarded)):
        params = jax.tree.map(lambda p: jnp.stack([p] * 4), PARAMS)
        state = jax.vmap(tx.init)(params)
        update = jax.jit(jax.vmap(tx.update))
        with gs.capture(tmp_path / str(id(tx)), every=2) as capture:
            for step in range(1, 7):
                bad = jax.tree.map(jnp.ones_like, params)
                bad["w"] = bad["w"].at[2].set(jnp.nan if step == 5 else 1.0)
                _, state = update(bad, state, params)
                capture(state, step)
        assert [gs.read_capture(one).batch for one in capture.folders] == [5]


def test_state_holders_of_flax(tmp_path: Path) -> None:
    train_state = pytest.importorskip("flax.training.train_state")
    nnx = pytest.importorskip("flax.nnx")
    held = train_state.TrainState.create(apply_fn=lambda _: None, params=PARAMS, tx=GUARDED)
    nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    with gs.capture(tmp_path / "linen", every=1) as capture:
        capture(held.replace(opt_state=UPDATE(nan, held.opt_state, PARAMS)[1]), 1)
    one = gs.read_capture(capture.folders[0])
    chex.assert_trees_all_equal(one.params, PARAMS)
    assert int(gs.health(one.opt_state).rejected) == 1
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, GUARDED, wrt=nnx.Param)
    with gs.capture(tmp_path / "nnx", every=1) as capture:
        gradient = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), nnx.state(model, nnx.Param))
        nnx.jit(lambda optimizer, *args: optimizer.update(*args))(optimizer, model, gradient)
        capture(optimizer, 1, params=nnx.state(model, nnx.Param))
    one = gs.read_capture(capture.folders[0])
    assert np.array_equal(one.params["kernel"], model.kernel.get_value())
    assert int(gs.health(one.opt_state).rejected) == 1


def test_grain_batches(tmp_path: Path) -> None:
    grain = pytest.importorskip("grain")
    source = [batch_of(step, bad=step == 5) for step in range(16)]
    data = grain.MapDataset.source(source).map(lambda one: (one["x"], {"id": one["id"]})).batch(1)
    params, state = PARAMS, RECORDED.init(PARAMS)
    with gs.capture(tmp_path, every=4) as capture:
        for batch in data.to_iter_dataset():
            params, state = STEPS["recorded"](params, state, batch[0][0])
            capture(state, batch, params=params)
    one = gs.read_capture(capture.folders[0])
    assert isinstance(one.batch, tuple)
    assert one.batch[1]["id"].tolist() == [[5]]


def test_config_and_versions_are_in_the_description(tmp_path: Path) -> None:
    config = {"checkpoints": Path("there"), "lr": 1e-3, "nan": float("nan"), "n": [1, None]}
    with gs.capture(tmp_path, every=1, config=config) as capture:
        run(capture, steps=2, bad=(2,))
    one = gs.read_capture(capture.folders[0])
    assert one.info["config"] == {"checkpoints": "there", "lr": 1e-3, "nan": "nan", "n": [1, None]}
    assert (one.info["jax"], one.info["platform"]) == (jax.__version__, "cpu")
    text = (capture.folders[0] / "event.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
