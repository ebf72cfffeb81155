"""Sinks that raise: the training goes on, the other sinks too, and what was missed is told."""

import errno
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from gradstable.telemetry import Event, Header, Log, Rollback, read_run

PARAMS = {"w": jnp.ones(3)}
TX = gs.record(gs.guard(optax.sgd(0.1)), capacity=16)
UPDATE = jax.jit(TX.update)
METHODS = ("open", "steps", "scalars", "note", "lost", "close")
ERRORS = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("gone"), ValueError("odd"),
    KeyError("loss"), TypeError("none"), AttributeError("old"), RecursionError(), MemoryError(),
]  # fmt: skip


class Fragile:
    """Notes all calls, and raises in one method while it is told to."""

    def __init__(self, method: str, error: Exception) -> None:
        self.method, self.error, self.broken = method, error, True
        self.calls: list[tuple[Any, ...]] = []

    def _call(self, method: str, *args: Any) -> None:
        if self.broken and method == self.method:
            raise self.error
        self.calls.append((method, *args))

    def open(self, header: Header) -> None:
        self._call("open", header.name)

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._call("steps", rows[0]["step"], rows[-1]["step"])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._call("scalars", step, values)

    def note(self, step: int, text: str) -> None:
        self._call("note", step, text)

    def lost(self, first: int, last: int) -> None:
        self._call("lost", first, last)

    def close(self, step: int) -> None:
        self._call("close", step)


def train(log: Log, sink: Fragile, *, mended_after: int = 100) -> None:
    state = TX.init(PARAMS)
    for step in range(1, 41):
        sink.broken = sink.broken and step <= mended_after
        _, state = UPDATE(PARAMS, state, PARAMS)
        log(state)
    log.scalars(40, accuracy=0.5)
    log.note(40, "done")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", METHODS)
def test_no_sink_ends_a_training(method: str, error: Exception, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    sink = Fragile(method, error)
    if method == "open" and isinstance(error, (ValueError, TypeError)):
        with pytest.raises(type(error)):  # how it was made is wrong, and this is where to say it
            Log(PARAMS, sinks=[sink])
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Log(PARAMS, file, sinks=[sink], every=8) as log:
            train(log, sink)
            if method == "lost":
                log._outlets[1].lost(1, 2)
    assert told[0].category is RuntimeWarning
    assert "Fragile failed, but training continues: " in str(told[0].message)
    assert len(told) <= 2, "one at first, and one at the end"
    run = read_run(file)
    assert run.step.tolist() == list(range(1, 41))
    assert run.ended


def test_what_a_sink_missed_is_told_to_it_when_it_works_again() -> None:
    sink = Fragile("steps", RuntimeError("gone"))
    with pytest.warns(RuntimeWarning) as told, Log(PARAMS, sinks=[sink], every=8) as log:
        train(log, sink, mended_after=17)
    assert [call[:3] for call in sink.calls if call[0] in ("steps", "lost")] == [
        ("steps", 17, 24), ("lost", 1, 16), ("steps", 25, 32), ("steps", 33, 40),
    ]  # fmt: skip
    assert [str(one.message) for one in told] == [
        "Fragile failed, but training continues: RuntimeError: gone.", "Fragile failed 2 times.",
    ]  # fmt: skip


def test_what_a_sink_missed_to_the_end_is_in_the_last_warning() -> None:
    sink = Fragile("steps", RuntimeError("gone"))
    with pytest.warns(RuntimeWarning) as told, Log(PARAMS, sinks=[sink], every=8) as log:
        train(log, sink)
    assert str(told[-1].message) == "Fragile failed 5 times. It lacks steps 1 to 40."


def test_a_warning_that_is_an_error_goes_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall: with -W error a warning would end the training itself."""
    sink = Fragile("steps", RuntimeError("gone"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with (
            caplog.at_level(logging.WARNING, logger="gradstable"),
            Log(PARAMS, sinks=[sink], every=8) as log,
        ):
            train(log, sink)
    assert "training continues" in caplog.messages[0]


def test_what_ends_a_run_is_not_hidden_by_what_its_log_then_raises(tmp_path: Path) -> None:
    sink = Fragile("close", RuntimeError("gone"))
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ZeroDivisionError),
        Log(PARAMS, tmp_path / "run.jsonl", sinks=[sink]),
    ):
        raise ZeroDivisionError
    assert "ended by ZeroDivisionError" in read_run(tmp_path / "run.jsonl").notes[0].text


@pytest.mark.parametrize("stops", [KeyboardInterrupt, SystemExit])
def test_a_person_who_stops_it_is_obeyed(stops: type[BaseException]) -> None:
    sink = Fragile("steps", stops())  # pyright: ignore[reportArgumentType]
    log = Log(PARAMS, sinks=[sink], every=8)
    with pytest.raises(stops):
        train(log, sink)


def test_event_is_no_name_for_a_number() -> None:
    with Log(PARAMS) as log, pytest.raises(ValueError, match="event cannot name a number"):
        log.scalars(1, event=1.0)


def test_tensorboard_with_a_full_disk_neither_raises_nor_waits(tmp_path: Path) -> None:
    """Pitfall: the thread that writes dies, and whoever fills its queue waits for ever."""
    pytest.importorskip("tensorboardX")
    sink = gs.telemetry.TensorBoard(tmp_path)
    rows = [{"step": step, "loss": 1.0, "grad_norm": 1.0} for step in range(1, 65)]
    with Log(PARAMS, sinks=[sink]) as log:
        events = sink._writer.file_writer.event_writer
        events._event_queue.put(events._worker._shutdown_signal)  # as if it had died
        events._worker.join()
        log._outlets[0].steps(rows)
        assert sink._writer.file_writer.event_writer is not events
        log._outlets[0].steps(rows)
    assert len(list(tmp_path.iterdir())) >= 1


def test_a_rollback_is_an_event_where_it_is_taken_and_a_note_elsewhere(tmp_path: Path) -> None:
    """That of one of several runs is in its file alone."""
    sink = Fragile("never", ValueError())
    events = [
        Event("rolled_back", 30, 30, "rolled back", {"step": 30, "to": 21, "times": 1}),
        Event("rolled_back", 70, 70, "rolled back", {"step": 70, "to": 41, "times": 2}, "3"),
    ]
    with Log(PARAMS, tmp_path / "run.jsonl", sinks=[sink]) as log:
        for outlet in log._outlets:
            for event in events:
                outlet.event(event)
    assert [call for call in sink.calls if call[0] == "note"] == [
        ("note", 30, "rolled back"), ("note", 70, "member 3: rolled back"),
    ]  # fmt: skip
    assert read_run(tmp_path / "run.jsonl").rollbacks == (Rollback(30, to=21),)
    own = read_run(tmp_path / "run.member3.jsonl").rollbacks
    assert own == (Rollback(70, to=41, times=2),)
