"""From the optimizer state to a file and back; what happens when something breaks between."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradstable as gs
from gradstable._src.telemetry.fields import LINES
from gradstable.telemetry import JsonLines, Log, read_run

PARAMS = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4)}
TX = gs.record(gs.guard(optax.sgd(0.1)), capacity=16)


def train(log: Log, *, steps: int, bad: tuple[int, ...] = (), state: object = None) -> object:
    update = jax.jit(TX.update)
    state = TX.init(PARAMS) if state is None else state
    first = int(state.calls) + 1
    for step in range(first, first + steps):
        grads = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan if step in bad else 1.0), PARAMS)  # noqa: B023
        _, state = update(grads, state, PARAMS, value=jnp.float32(1.0 / step))
        log(state)
    return state


def test_everything_is_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "run.jsonl"
    with Log(PARAMS, file, every=5, config={"b2": 0.95, "path": tmp_path}) as log:
        train(log, steps=23, bad=(7, 8))
        log.scalars(23, accuracy=jnp.float32(0.5), loss_scale=np.inf)
        log.note(23, "done")
    run = read_run(file)
    assert run.name == "run"
    assert run.config == {"b2": 0.95, "path": str(tmp_path)}
    assert run.leaves == ("['a']", "['b']")
    assert run.sizes.tolist() == [6, 4]
    assert run.dtypes == ("float32", "float32")
    assert run.step.tolist() == list(range(1, 24))
    np.testing.assert_allclose(run.loss, 1.0 / run.step, rtol=1e-6)
    assert run.step[run.rejected].tolist() == [7, 8]
    assert np.isnan(run.grad_norm[6])
    assert not run.clipped.any()
    assert run.has_loss
    assert run.leaf_steps.tolist() == [1, 5, 9, 13, 17, 21]
    np.testing.assert_allclose(run.leaf_norms[0], [6**0.5, 2.0], rtol=1e-6)
    assert run.scalars["accuracy"].value.tolist() == [0.5]
    assert run.scalars["loss_scale"].value.tolist() == [np.inf]
    assert run.notes == ((23, "done"),)
    assert run.ended
    assert not run.lost
    for line in file.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_lines_are_those_of_the_table(tmp_path: Path) -> None:
    """A field that is written and not in the table would be lost when it is read."""
    file = tmp_path / "run.jsonl"
    with Log(PARAMS, file) as log:
        train(log, steps=3)
        log.note(3, "done")
        log._outlets[0].lost(4, 5)
        row = {"step": 3, "to": 1, "times": 1}
        log._outlets[0].event(gs.telemetry.Event("rolled_back", 3, 3, "rolled back", row))
        log._outlets[0].leaves(log._header)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert {event["event"] for event in events} == LINES.keys() - {"scalars"}
    for event in events:
        assert event.keys() - {"event"} <= LINES[event["event"]].keys()


def test_device_is_read_only_every_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: reads.append(1) or get(tree))
    with Log(PARAMS, every=10) as log:
        train(log, steps=29)
        assert len(reads) == 2
    assert len(reads) == 3


def test_steps_that_were_overwritten_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with Log(PARAMS, file, every=2) as log:
        train(log, steps=2)
        state = TX.init(PARAMS)
        update = jax.jit(TX.update)
        for _ in range(40):
            _, state = update(PARAMS, state, PARAMS)
        log(state)
    run = read_run(file)
    assert run.lost == ((3, 24),)
    assert run.step.tolist() == [1, 2, *range(25, 41)]


def test_reading_more_seldom_than_the_ring_is_long_is_refused() -> None:
    with pytest.raises(ValueError, match="got every=17, capacity=16"):
        train(Log(PARAMS, every=17), steps=1)


def test_run_that_died_while_writing_is_read_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    log = Log(PARAMS, file, every=4)
    state = train(log, steps=10)  # 8 of them written; then the process dies
    log._sinks[0]._file.close()
    file.write_text(file.read_text() + '{"event": "step", "st')
    assert read_run(file).step.tolist() == list(range(1, 9))
    assert not read_run(file).ended
    with Log(PARAMS, sinks=[JsonLines(file, append=True)], every=4) as log:
        train(log, steps=3, state=state)
    run = read_run(file)
    assert run.step.tolist() == [*range(1, 9), 11, 12, 13]
    assert run.remarks == ("line 10: cut off",)


def test_exception_is_noted_and_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with pytest.raises(RuntimeError, match="disk full"), Log(PARAMS, file) as log:  # noqa: PT012
        train(log, steps=3)
        msg = "disk full"
        raise RuntimeError(msg)
    run = read_run(file)
    assert run.notes[0].text == "ended by RuntimeError: disk full"
    assert run.step.tolist() == [1, 2, 3]


def test_state_that_was_given_away_is_not_read(tmp_path: Path) -> None:
    """Pitfall: a donated state is gone when the step after it fails."""
    with Log(PARAMS, tmp_path / "run.jsonl") as log:
        state = train(log, steps=3)
        jax.tree.map(lambda leaf: leaf.delete(), state)
    assert read_run(tmp_path / "run.jsonl").step.size == 0


def test_flax_optimizer_is_read(tmp_path: Path) -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gs.record(gs.guard(optax.adam(1e-2))), wrt=nnx.Param)

    @nnx.jit
    def train_step(model: nnx.Linear, optimizer: nnx.Optimizer) -> None:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(m(jnp.ones((4, 3))) ** 2))(model)
        optimizer.update(model, grads, value=loss)

    with Log(nnx.state(model, nnx.Param), tmp_path / "run.jsonl") as log:
        for _ in range(3):
            train_step(model, optimizer)
            log(optimizer)
    run = read_run(tmp_path / "run.jsonl")
    assert run.leaves == ("['bias']", "['kernel']")
    assert (np.diff(run.loss) < 0).all()
    assert (run.update_ratio[1:] > 0).all()


def test_no_recorder_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"0 recorders found .* gradstable.record\("):
        Log(PARAMS)(optax.sgd(0.1).init(PARAMS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a record of a run"),
        ('{"event": "step", "step": 1}\n', "not a record of a run"),
        ('{"event": "run", "format": 99}\n', "format 99, but this version reads up to 1"),
    ],
)
def test_file_that_is_no_run_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "run.jsonl")
