"""Taps in the record: kept on the device, written by the log, and read back."""

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
from gradstable._src.telemetry.tap_ring import SIDE, TAP_WIDTH
from gradstable.telemetry import JsonLines, Log, read_rows, read_run

PARAMS = {"w": jnp.ones((2, 4, 4))}
X = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


def loss_fn(params: Any, size: jax.Array) -> jax.Array:
    def layer(h: jax.Array, item: Any) -> tuple[jax.Array, None]:
        index, w = item
        return gs.tap("layers", jnp.tanh(h @ w), layer=index, layers=2), None

    h, _ = jax.lax.scan(layer, size * X, (jnp.arange(2), params["w"]))
    q = h.reshape(3, 2, 2)
    logits = jnp.einsum("qhd,khd->hqk", q, q) * jnp.array([1.0, 3.0])[:, None, None]
    return jnp.mean(gs.taps.attention_logits("attention", logits) ** 2) + gs.tap("out", h).mean()


SHAPES = gs.taps.shapes(loss_fn, PARAMS, 1.0)


def simple(params: Any, size: jax.Array) -> jax.Array:
    return jnp.mean(gs.tap("out", size * params["w"]) ** 2)


SIMPLE = gs.taps.shapes(simple, PARAMS, 1.0)


def run(tx: Any, log: Log | None, steps: int, *, every: int = 1, loss_fn: Any = loss_fn) -> Any:
    @jax.jit
    @chex.assert_max_traces(1)
    def train_step(params: Any, state: Any, step: jax.Array) -> Any:
        grads_of = gs.taps.value_and_grad(loss_fn, when=step % every == 0)
        (loss, grads), taps = grads_of(params, 1.0 + step)
        updates, state = tx.update(grads, state, params, value=loss, taps=taps)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for step in range(steps):
        params, state = train_step(params, state, jnp.int32(step))
        if log is not None:
            log(state)
    return state


def recorder(**kwargs: Any) -> Any:
    return gs.record(gs.guard(optax.sgd(1e-3)), taps=SHAPES, **kwargs)


def run_simple(log: Log | None, steps: int, *, every: int = 1, **kwargs: Any) -> Any:
    tx = gs.record(optax.sgd(1e-3), taps=SIMPLE, **kwargs)
    return run(tx, log, steps, every=every, loss_fn=simple)


def test_rows_are_those_that_read_shows() -> None:
    tx = recorder(leaf_every=1)
    rows = read_rows(run(tx, None, 2)).steps
    _, taps = jax.jit(gs.taps.value_and_grad(loss_fn))(PARAMS, 1.0)
    expected, found = gs.taps.read(taps), rows[0]["taps"]
    assert sorted(found) == ["attention", "layers/0", "layers/1", "out"]
    for name in ("layers/0", "layers/1", "out"):
        both = [expected[name][side][what] for side in ("forward", "gradient") for what in SIDE]
        np.testing.assert_allclose(found[name], [*both, -1], rtol=1e-5)
    # Of the heads, that with the largest logit.
    one = expected["attention/head_1"]
    assert one["forward"]["max_abs"] > expected["attention/head_0"]["forward"]["max_abs"]
    both = [one[side][what] for side in ("forward", "gradient") for what in SIDE]
    np.testing.assert_allclose(found["attention"], [*both, 1], rtol=1e-5)


def test_updates_are_those_without_taps() -> None:
    plain, tx = (
        gs.record(gs.guard(optax.adam(1e-2))),
        gs.record(gs.guard(optax.adam(1e-2)), taps=SHAPES),
    )
    (loss, grads), taps = jax.jit(gs.taps.value_and_grad(loss_fn))(PARAMS, 1.0)
    ours = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS, value=loss, taps=taps)[0]
    theirs = jax.jit(plain.update)(grads, plain.init(PARAMS), PARAMS, value=loss)[0]
    chex.assert_trees_all_equal(ours, theirs)


def test_without_taps_the_state_is_the_same() -> None:
    state = gs.record(optax.sgd(0.1)).init(PARAMS)
    assert state._fields[-1] == "wrapped_state"
    assert not hasattr(state, "tap_rows")


@pytest.mark.parametrize(("every", "leaf_every"), [(1, 4), (5, 4), (3, 1)])
def test_steps_are_kept_that_measure_but_not_too_often(every: int, leaf_every: int) -> None:
    rows = read_rows(run_simple(None, 20, every=every, leaf_every=leaf_every, capacity=32)).steps
    kept = [row["step"] for row in rows if "taps" in row]
    measured = range(1, 21, every)
    expected: list[int] = []
    for step in measured:
        if not expected or step - expected[-1] >= leaf_every:
            expected.append(step)
    assert kept == expected


def test_ring_never_overflows_between_two_readings(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with Log(PARAMS, file) as log:
        run_simple(log, 50, capacity=16, leaf_every=4)
    found = read_run(file)
    assert found.taps["out"].step.tolist() == list(range(1, 51, 4))
    assert not found.damaged


def test_log_writes_and_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with Log(PARAMS, file) as log:
        state = run(recorder(), log, 12, every=4)
    found = read_run(file)
    rows = [row for row in read_rows(state).steps if "taps" in row]
    assert [row["step"] for row in rows] == found.taps["layers/1"].step.tolist() == [1, 5, 9]
    for name, record in found.taps.items():
        table = np.array([row["taps"][name] for row in rows])
        np.testing.assert_array_equal(record.forward["max_abs"], table[:, SIDE.index("max_abs")])
        np.testing.assert_array_equal(record.gradient["rms"], table[:, len(SIDE)])
        assert record.of_attention == (name == "attention")
    assert found.taps["attention"].head.tolist() == [1, 1, 1]
    assert len(found.loss) == 12


def test_several_runs_in_one_state(tmp_path: Path) -> None:
    tx = gs.record(optax.sgd(1e-3), taps=SHAPES, leaf_every=1)

    @jax.jit
    @jax.vmap
    def states(scale: jax.Array) -> Any:
        (_, grads), taps = gs.taps.value_and_grad(loss_fn)(PARAMS, scale)
        return tx.update(grads, tx.init(PARAMS), PARAMS, taps=taps)[1]

    state = states(jnp.array([0.1, 1.0]))
    rows = read_rows(state).steps
    assert [row["member"] for row in rows] == [(0,), (1,)]
    small, large = (row["taps"]["layers/0"][SIDE.index("rms")] for row in rows)
    assert small < large
    with Log(PARAMS, tmp_path / "run.jsonl") as log:
        log(state)
    assert read_run(tmp_path / "run.member1.jsonl").taps["layers/0"].step.tolist() == [1]


def test_a_tap_that_did_not_run_is_nan() -> None:
    tx = gs.record(optax.sgd(0.1), taps=SHAPES)
    _, taps = gs.taps.value_and_grad(loss_fn)(PARAMS, 1.0)
    taps = {**taps, "out": jax.tree.map(jnp.zeros_like, taps["out"])}
    _, state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS, taps=taps)
    found = read_rows(state).steps[0]["taps"]
    assert np.isnan(found["out"][:-1]).all()
    assert np.isfinite(found["layers/0"]).all()


def test_mistakes_are_named_with_their_remedy() -> None:
    tx, plain = recorder(), gs.record(optax.sgd(0.1))
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    _, taps = gs.taps.value_and_grad(loss_fn)(PARAMS, 1.0)
    with pytest.raises(ValueError, match=r"built without taps: pass their shapes, record\("):
        plain.update(grads, plain.init(PARAMS), PARAMS, taps=taps)
    with pytest.raises(ValueError, match=r"needs them: update\(\.\.\., taps=taps\)"):
        tx.update(grads, tx.init(PARAMS), PARAMS)
    fewer = {name: one for name, one in taps.items() if name != "out"}
    with pytest.raises(
        ValueError, match=r"taps has nothing for 'out', where .* built for \(100,\)"
    ):
        tx.update(grads, tx.init(PARAMS), PARAMS, taps=fewer)
    with pytest.raises(ValueError, match="taps is empty"):
        gs.record(optax.sgd(0.1), taps={})
    with pytest.raises(TypeError, match="taps must be what"):
        gs.record(optax.sgd(0.1), taps=jnp.ones(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="taps must be what"):
        tx.update(grads, tx.init(PARAMS), PARAMS, taps={"out": jnp.ones(100)})


def test_a_name_of_optax_is_no_obstacle() -> None:
    def named(w: jax.Array) -> jax.Array:
        return jnp.sum(gs.tap("count", w) ** 2)

    w = jnp.ones(3)
    tx = gs.record(optax.adam(0.1), taps=gs.taps.shapes(named, w))
    state = tx.init(w)
    (_, grads), taps = gs.taps.value_and_grad(named)(w)
    _, state = tx.update(grads, state, w, taps=taps)
    assert optax.tree.get(state, "count") == 1
    assert "count" in read_rows(state).steps[0]["taps"]


def test_broken_taps_are_damage_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    sink = JsonLines(file)
    with Log(PARAMS, sinks=[sink]) as log:
        run_simple(log, 3, leaf_every=1)
    lines = file.read_text().splitlines()
    at = next(place for place, line in enumerate(lines) if '"taps"' in line)
    for bad in ([1], "x", {"out": [1.0] * (TAP_WIDTH - 1)}, {"out": ["x"] * TAP_WIDTH}, 3):
        changed = {**json.loads(lines[at]), "taps": bad}
        file.write_text("\n".join([*lines[:at], json.dumps(changed), *lines[at + 1 :]]))
        found = read_run(file)
        assert found.damaged == 1
        assert "taps" in found.remarks[0]
        assert len(found.step) == 2


def test_other_sinks_receive_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = gs.telemetry.TensorBoard(tmp_path)
    with Log(PARAMS, sinks=[sink]) as log:
        run(recorder(leaf_every=1), log, 3)
    tags = accumulator.EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert "taps/layers/0/forward_max_abs" in tags
    assert "taps/attention/forward_max_abs" in tags
    assert "taps/attention/forward_rms" not in tags
