"""Sinks, each read back by the program that it is made for."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.telemetry.console import sparkline
from gradstable.telemetry import Console, Log, Logging, MLflow, Sink, TensorBoard, Trackio, WandB

PARAMS = {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))}
STEPS, BAD = 12, 5


def train(*sinks: Sink) -> None:
    tx = gs.record(gs.guard(optax.adam(1e-2)))
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    with Log(PARAMS, sinks=sinks, every=4, name="short", config={"b2": 0.999}) as log:
        for step in range(1, STEPS + 1):
            grads = jax.tree.map(jnp.ones_like, PARAMS)
            if step == BAD:
                grads["kernel"] = grads["kernel"] * jnp.nan
            _, state = update(grads, state, PARAMS, value=jnp.float32(1.0 / step))
            log(state)
        log.scalars(STEPS, accuracy=0.75)
        log.note(STEPS, "epoch 1")


def test_tensorboard_opens_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(TensorBoard(tmp_path))
    events = accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"histograms": 0, "tensors": 0, "scalars": 0}
    ).Reload()
    losses = events.Scalars("train/loss")
    assert [one.step for one in losses] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([one.value for one in losses], 1 / np.arange(1, STEPS + 1), 1e-6)
    assert [one.value for one in events.Scalars("guard/scale")].index(0.0) == BAD - 1
    assert [one.step for one in events.Scalars("guard/not_finite")] == [BAD]
    assert BAD not in [one.step for one in events.Scalars("gradient/norm")]
    assert events.Scalars("metrics/accuracy")[0].value == 0.75
    # The leaf that was broken is not in the histogram of its step.
    counts = {one.step: one.histogram_value.num for one in
              events.Histograms("gradient/log10_leaf_norms")}  # fmt: skip
    assert counts == {1: 2.0, 5: 1.0, 9: 2.0}
    texts = [
        one.tensor_proto.string_val[0].decode() for one in events.Tensors("events/text_summary")
    ]
    assert "NaN" in texts[0]
    assert texts[-1] == "epoch 1"


def test_wandb_is_sent_steps_and_numbers() -> None:
    """A stand-in for the service, with the calls that a run of the real library takes."""

    class FakeRun:
        def __init__(self) -> None:
            self.rows: list[dict[str, float]] = []
            self.summary: dict[str, str] = {}
            self.finished = False

            self.alerts: list[tuple[str, str, str]] = []

        def define_metric(self, name: str, **_: object) -> None: ...

        def alert(self, title: str, text: str, level: str) -> None:
            self.alerts.append((title, text, level))

        def log(self, row: dict[str, float]) -> None:
            self.rows.append(row)

        def finish(self) -> None:
            self.finished = True

    run = FakeRun()
    train(WandB(run))
    rows = [row for row in run.rows if "gradstable/loss" in row]
    assert [row["gradstable/step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["gradstable/rejected"] == 1
    assert {"accuracy": 0.75, "gradstable/step": STEPS} in run.rows
    assert run.summary["gradstable/last_rejection"].startswith(f"step {BAD}: ")
    assert run.summary["gradstable/last_event"] == run.alerts[0][1]
    ((title, text, level),) = run.alerts
    assert (title, level) == ("gradstable: rejected", "WARN")
    assert text.startswith(f"step {BAD}: rejected: the gradient had NaN")
    assert not run.finished, "it belongs to the caller"


@pytest.mark.slow
def test_wandb_itself_takes_the_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    train(WandB(project="tests", mode="offline", dir=str(tmp_path)))
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_logging_tells_what_a_person_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gradstable"):
        train(Logging())
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warned == [
        f"step {BAD}: rejected: the gradient had NaN or infinite entries, in ['kernel']"
    ]
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.INFO]
    assert told[0] == "short: 9 parameters in 2 leaves"
    assert told[1].startswith("step 4: loss 0.25, gradient norm 3, 0 of 4 steps clipped")
    assert told[-3:] == [f"step {STEPS}: accuracy 0.75", f"step {STEPS}: epoch 1",
                         f"ended after {STEPS} steps"]  # fmt: skip


def test_logging_tells_what_ends_a_run_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), Log(PARAMS, sinks=[Logging()]):
        raise ZeroDivisionError
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
        "step 0: ended by ZeroDivisionError: "
    ]


def test_console_shows_the_run() -> None:
    rich = pytest.importorskip("rich.console")
    screen = io.StringIO()
    train(Console(rich.Console(file=screen, width=100, force_terminal=False)))
    text = screen.getvalue()
    for part in ("short", "step 12: 11 accepted", "1 rejected", "accuracy", "0.75", "['kernel']"):
        assert part in text


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([np.nan, 1.0, np.inf]) == "×▁×"
    assert len(sparkline(range(1000))) == 32


@pytest.mark.parametrize(
    ("sink", "module", "extra"),
    [
        (lambda: TensorBoard("x"), "tensorboardX", "tensorboard"),
        (WandB, "wandb", "wandb"),
        (Trackio, "trackio", "trackio"),
        (MLflow, "mlflow", "mlflow"),
        (Console, "rich", "console"),
    ],
)
def test_missing_library_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, sink: Callable[[], Sink], module: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{module} .*'gradstable\[{extra}\]'"):
        sink()
