"""Trackio and MLflow: against stand-ins with the calls that are used, and against themselves."""

import enum
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.telemetry import Log, MLflow, Sink, Trackio

PARAMS = {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))}
STEPS, BAD, SPIKE = 80, 40, 60
CONFIG = {"b2": 0.999, "warmup_steps": None, "dtype": jnp.float32}
NAN_TOLD = f"step {BAD}: rejected: the gradient had NaN or infinite entries, in ['kernel']"
SPIKE_TOLD = f"step {SPIKE}: rejected: the gradient norm was far above its usual range"


def train(sink: Sink, *, ends: bool = False) -> None:
    tx = gs.record(gs.guard(optax.adam(1e-2)))
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    with Log(PARAMS, sinks=[sink], every=16, name="short", config=CONFIG) as log:
        for step in range(1, STEPS + 1):
            size = 1e9 if step == SPIKE else 1.0 + 0.1 * np.sin(step)
            grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, size), PARAMS)  # noqa: B023
            if step == BAD:
                grads["kernel"] = grads["kernel"] * jnp.nan
            _, state = update(grads, state, PARAMS, value=jnp.float32(1.0 / step))
            log(state)
        log.scalars(STEPS, accuracy=0.75, worst=np.inf)
        log.note(STEPS, "epoch 1")
        if ends:
            raise ZeroDivisionError


class FakeTrackio(ModuleType):
    """The calls of Trackio 0.43 that are used, which keep what they are given."""

    class AlertLevel(enum.StrEnum):
        INFO, WARN, ERROR = "info", "warn", "error"

    class Run:
        def __init__(self, **settings: Any) -> None:
            self.settings, self.finished = settings, False
            self.logged: list[tuple[int, dict[str, float]]] = []
            self.alerts: list[tuple[str, str, str, int]] = []

        def log(self, metrics: dict[str, float], step: int | None = None) -> None:
            assert step is not None
            self.logged.append((step, metrics))

        def alert(self, title: str, text: str, level: Any, step: int) -> None:
            self.alerts.append((title, text, level.value, step))

        def finish(self) -> None:
            self.finished = True

    def init(self, project: str, **settings: Any) -> Run:
        self.run = self.Run(project=project, **settings)
        return self.run


@pytest.fixture
def fake_trackio(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    fake = FakeTrackio("trackio")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_is_sent_steps_settings_and_alerts(fake_trackio: FakeTrackio) -> None:
    train(Trackio(space_id="team/space"))
    run = fake_trackio.run
    assert run.settings == {
        "project": "gradstable",
        "name": "short",
        "config": {**CONFIG, "dtype": str(jnp.float32)},
        "space_id": "team/space",
    }
    rows = [(step, row) for step, row in run.logged if "gradstable/loss" in row]
    assert [step for step, _ in rows] == list(range(1, STEPS + 1))
    assert rows[0][1]["gradstable/loss"] == 1.0
    assert rows[-1][1]["gradstable/rejected"] == 2
    assert (STEPS, {"accuracy": 0.75, "worst": np.inf}) in run.logged
    first, second, note = run.alerts
    assert first == ("gradstable: rejected", NAN_TOLD, "warn", BAD)
    assert second[1].startswith(SPIKE_TOLD)
    assert note == ("gradstable: note", "epoch 1", "info", STEPS)
    assert run.finished


def test_a_run_of_yours_in_trackio_is_not_finished(fake_trackio: FakeTrackio) -> None:
    run = fake_trackio.init("mine")
    with pytest.raises(ZeroDivisionError):
        train(Trackio(run), ends=True)
    assert fake_trackio.run is run
    assert not run.finished
    assert run.alerts[-1][::2] == ("gradstable: ended", "error")


@pytest.mark.slow
def test_trackio_itself_takes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage")
    for module in (storage, pytest.importorskip("trackio.utils")):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path)
    train(Trackio(project="tests", auto_log_cpu=False, auto_log_gpu=False))
    run = trackio.Api().runs("tests")[0]
    assert run.name == "short"
    assert run.config["b2"] == 0.999
    told = [one["text"] for one in sorted(run.alerts(), key=lambda one: one["step"])]
    assert told[0] == NAN_TOLD
    assert told[1].startswith(SPIKE_TOLD)
    logged = storage.SQLiteStorage.get_logs("tests", "short")
    losses = {one["step"]: one["gradstable/loss"] for one in logged if "gradstable/loss" in one}
    np.testing.assert_allclose(
        [losses[step] for step in range(1, STEPS + 1)], 1 / np.arange(1, STEPS + 1), 1e-6
    )


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class FakeMLflow(ModuleType):
    """The calls of MLflow 3.17 that are used, with its limits for one request."""

    entities = SimpleNamespace(Metric=Metric, Param=Param)

    class Run:
        def __init__(self, run_id: str, name: str, **settings: Any) -> None:
            self.info = SimpleNamespace(run_id=run_id, run_name=name, status="RUNNING")
            self.data = SimpleNamespace(params={}, tags=dict(settings.get("tags", {})))
            self.metrics: list[Metric] = []
            self.files: dict[str, str] = {}

        def of(self, key: str) -> list[tuple[int, float]]:
            return [(one.step, one.value) for one in self.metrics if one.key == key]

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, FakeMLflow.Run] = {}
        self.active: FakeMLflow.Run | None = None

    def start_run(self, run_name: str, **settings: Any) -> Run:
        assert self.active is None, "a run is already active"
        run_id = f"id{len(self.runs)}"
        self.active = self.runs[run_id] = self.Run(run_id, run_name, **settings)
        return self.active

    def active_run(self) -> Run | None:
        return self.active

    def end_run(self, status: str) -> None:
        assert self.active is not None
        self.active.info.status, self.active = status, None

    def MlflowClient(self) -> "FakeMLflow":
        return self

    def get_run(self, run_id: str) -> Run:
        return self.runs[run_id]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        run = self.runs[run_id]
        assert len(metrics) <= 1000
        assert len(params) <= 100
        assert all(run.data.params.get(key, value) == value for key, value in params)
        run.metrics += metrics
        run.data.params.update(dict(params))

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].data.tags[key] = value

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.runs[run_id].files[artifact_file] = text

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].info.status = status


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_mlflow_is_sent_steps_settings_and_events(fake_mlflow: FakeMLflow) -> None:
    train(MLflow(tags={"team": "vision"}))
    (run,) = fake_mlflow.runs.values()
    assert run.info.run_name == "short"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"b2": "0.999", "warmup_steps": "None", "dtype": str(jnp.float32)}
    losses = run.of("gradstable/loss")
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    assert run.of("gradstable/rejected")[-1] == (STEPS, 2)
    assert run.of("gradstable/not_finite")[-1] == (STEPS, 1)
    assert BAD not in dict(run.of("gradstable/grad_norm")), "a database would store another number"
    assert (run.of("accuracy"), run.of("worst")) == ([(STEPS, 0.75)], [])
    first, second, note = run.files["gradstable/events.txt"].splitlines()
    assert first == NAN_TOLD
    assert second.startswith(SPIKE_TOLD)
    assert note == f"step {STEPS}: epoch 1"
    assert run.data.tags == {"team": "vision", "gradstable.last_event": note}


def test_mlflow_has_failed_if_the_training_has(fake_mlflow: FakeMLflow) -> None:
    with pytest.raises(ZeroDivisionError):
        train(MLflow(), ends=True)
    (run,) = fake_mlflow.runs.values()
    assert run.info.status == "FAILED"
    assert "ended by ZeroDivisionError" in run.data.tags["gradstable.last_event"]


Passed = Callable[[FakeMLflow.Run], Any]


@pytest.mark.parametrize("passed", [lambda run: None, lambda run: run, lambda run: run.info.run_id])
def test_a_run_of_yours_in_mlflow_goes_on(fake_mlflow: FakeMLflow, passed: Passed) -> None:
    """Pitfall: MLflow refuses another value for a parameter, as in a run that is resumed."""
    run = fake_mlflow.start_run("mine")
    run.data.params["b2"] = "0.95"
    train(MLflow(passed(run)))
    assert list(fake_mlflow.runs.values()) == [run]
    assert run.info.status == "RUNNING"
    assert run.data.params["b2"] == "0.95"
    assert len(run.of("gradstable/loss")) == STEPS


def test_a_run_that_is_no_longer_active_is_ended_all_the_same(fake_mlflow: FakeMLflow) -> None:
    sink = MLflow()
    with Log(PARAMS, sinks=[sink]):
        fake_mlflow.active = None
        other = fake_mlflow.start_run("other")
    first = next(iter(fake_mlflow.runs.values()))
    assert (first.info.status, other.info.status) == ("FINISHED", "RUNNING")


def test_mlflow_that_is_away_is_told_and_the_rest_goes_on(
    fake_mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = FakeMLflow.log_batch

    def away(self: FakeMLflow, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        if metrics and metrics[0].step == 17:
            raise ConnectionError("refused")
        send(self, run_id, metrics, params)

    monkeypatch.setattr(FakeMLflow, "log_batch", away)
    with pytest.warns(RuntimeWarning) as warned:
        train(MLflow())
    (run,) = fake_mlflow.runs.values()
    assert [step for step, _ in run.of("gradstable/loss")] == [*range(1, 17), *range(33, STEPS + 1)]
    assert [str(one.message) for one in warned] == [
        "MLflow failed, but training continues: ConnectionError: refused.",
        "MLflow failed once. It lacks steps 17 to 32.",
    ]


def test_long_readings_are_sent_in_parts(fake_mlflow: FakeMLflow) -> None:
    """Pitfall: MLflow takes 1,000 metrics and 100 parameters in one request."""
    config = {f"setting {number}": number for number in range(250)}
    sink = MLflow()
    rows = [{"step": step, "loss": 1.0, "grad_norm": 1.0} for step in range(1, 1001)]
    with Log(PARAMS, sinks=[sink], config=config) as log:
        log._outlets[0].steps(rows)
    (run,) = fake_mlflow.runs.values()
    assert len(run.data.params) == 250
    assert len(run.metrics) == 4000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_mlflow_itself_takes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    try:
        with pytest.raises(ZeroDivisionError):
            train(MLflow(tags={"team": "vision"}), ends=True)
        client = mlflow.MlflowClient()
        (run,) = client.search_runs(["0"])
        assert (run.info.run_name, run.info.status) == ("short", "FAILED")
        assert run.data.params["b2"] == "0.999"
        losses = client.get_metric_history(run.info.run_id, "gradstable/loss")
        np.testing.assert_allclose([one.value for one in losses], 1 / np.arange(1, STEPS + 1))
        assert run.data.metrics["gradstable/rejected"] == 2
        file = Path(client.download_artifacts(run.info.run_id, "gradstable/events.txt"))
        assert file.read_text().splitlines()[0] == NAN_TOLD
    finally:
        mlflow.set_tracking_uri(before)
