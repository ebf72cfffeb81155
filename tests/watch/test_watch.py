"""The companion of a training loop: everything beside it, in the right order, whatever ends it."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.telemetry.console import Pace
from gradstable.telemetry import Console, read_run

PARAMS = {"w": jnp.ones(3)}
RECORDED = gs.record(gs.guard(optax.sgd(0.1)))
BARE = optax.sgd(0.1)


def stepper(tx: Any) -> Callable[..., Any]:
    full = optax.with_extra_args_support(tx)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array) -> Any:
        loss, gradient = jax.value_and_grad(lambda p: jnp.mean((x @ p["w"] - 1.0) ** 2))(params)
        updates, state = full.update(gradient, state, params, value=loss)
        return optax.apply_updates(params, updates), state, loss

    return step


STEPS = {"recorded": stepper(RECORDED), "bare": stepper(BARE)}


def batches(count: int, bad: tuple[int, ...] = ()) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(count, 4, 3)).astype(np.float32)
    x[list(bad)] = np.nan
    return x


def interrupted(given: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches until someone presses Ctrl-C."""
    yield from given
    raise KeyboardInterrupt


def run(watch: Any, given: Iterable[np.ndarray], *, name: str = "recorded", **extra: Any) -> None:
    params, state = PARAMS, {"recorded": RECORDED, "bare": BARE}[name].init(PARAMS)
    for x in given:
        params, state, loss = STEPS[name](params, state, x)
        loss_too = {"loss": loss} if name == "bare" else {}
        watch(state, params, batch={"x": x}, **loss_too, **extra)


def test_everything_is_there_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    file = tmp_path / "run.jsonl"
    with gs.watch(
        RECORDED, PARAMS, file, capture_to=tmp_path / "bad",
        on_event=lambda event: seen.append(event.kind), config={"learning_rate": 0.1},
    ) as watch:  # fmt: skip
        run(watch, batches(100, bad=(70,)), accuracy=jnp.float32(0.5))
    found = read_run(file)
    assert found.step.tolist() == list(range(1, 101))
    assert found.config["learning_rate"] == 0.1
    assert "guard" in found.config["optimizer"]
    assert found.scalars["accuracy"].step.tolist() == list(range(1, 101))
    assert seen == ["rejected"]
    assert watch.capture is not None
    (folder,) = watch.capture.folders
    assert np.isnan(gs.read_capture(folder).batch["x"]).all()
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "rejected, because the gradient had NaN or infinite entries" in page
    told = capsys.readouterr().out
    assert told.startswith("run: ")
    assert told.endswith(f"See {tmp_path / 'run.html'}.\n")


def test_bare_optimizer_is_logged_by_its_losses(tmp_path: Path) -> None:
    with gs.watch(BARE, PARAMS, tmp_path / "bare.jsonl") as watch:
        run(watch, batches(100), name="bare")
    found = read_run(tmp_path / "bare.jsonl")
    assert found.step.tolist() == list(range(1, 101))
    assert np.isfinite(found.loss).all()
    assert found.known == {"loss"}
    assert (tmp_path / "bare.html").exists()


def test_run_that_cannot_continue_raises_and_leaves_its_report(tmp_path: Path) -> None:
    with (
        pytest.raises(gs.TrainingDiverged, match="20 steps were all rejected"),
        gs.watch(RECORDED, PARAMS, tmp_path / "run.jsonl", patience=20, every=20) as watch,
    ):
        run(watch, batches(300, bad=tuple(range(20, 300))))
    found = read_run(tmp_path / "run.jsonl")
    assert found.step[-1] == 40
    assert found.notes[-1].text.startswith("ended by TrainingDiverged")
    assert (tmp_path / "run.html").exists()


def test_ctrl_c_leaves_file_capture_and_report(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        gs.watch(RECORDED, PARAMS, tmp_path / "run.jsonl", capture_to=tmp_path / "bad") as watch,
    ):
        run(watch, interrupted(batches(70, bad=(69,))))
    found = read_run(tmp_path / "run.jsonl")
    assert found.step[-1] == 70
    assert found.notes[-1].text.startswith("ended by KeyboardInterrupt")
    assert watch.capture is not None
    assert len(watch.capture.folders) == 1
    assert (tmp_path / "run.html").exists()


def test_killed_process_leaves_what_was_read(tmp_path: Path) -> None:
    """Nothing runs after kill -9, but the file has all up to the last reading."""
    code = (
        "import os, signal, sys, jax.numpy as jnp, optax, gradstable as gs\n"
        "p = {'w': jnp.ones(3)}; tx = gs.record(gs.guard(optax.sgd(.1))); s = tx.init(p)\n"
        "with gs.watch(tx, p, sys.argv[1], every=4) as watch:\n"
        "    for step in range(9):\n"
        "        _, s = tx.update(p, s, p, value=1.0); watch(s)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "run.jsonl"
    killed = subprocess.run(
        [sys.executable, "-c", code, file], check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert killed.returncode == -9
    assert read_run(file).step.tolist() == list(range(1, 9))


def test_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    file, state, params = tmp_path / "run.jsonl", RECORDED.init(PARAMS), PARAMS
    for resume, given in ((False, batches(10)), (True, batches(5))):
        with gs.watch(RECORDED, PARAMS, file, resume=resume, report=False) as watch:
            for x in given:
                params, state, _ = STEPS["recorded"](params, state, x)
                watch(state, epoch=1.0)
    found = read_run(file)
    assert found.step.tolist() == list(range(1, 16))
    assert found.scalars["epoch"].step.tolist() == list(range(1, 16))


def test_a_step_waits_for_nothing_between_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalars that the loop passes are fetched with the rest."""
    fetched: list[int] = []
    get = jax.device_get

    def counting(tree: Any) -> Any:
        fetched.append(1)
        return get(tree)

    with gs.watch(RECORDED, PARAMS) as watch:
        run(watch, batches(64), accuracy=jnp.float32(1.0))
        monkeypatch.setattr(jax, "device_get", counting)
        run_on = batches(63)
        state, params = RECORDED.init(PARAMS), PARAMS
        for x in run_on:
            params, state, _ = STEPS["recorded"](params, state, x)
            watch(state, params, accuracy=jnp.float32(1.0))
        assert not fetched


def test_report_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.html").mkdir()
    with (
        pytest.warns(RuntimeWarning, match=r"run\.html could not be written"),
        gs.watch(RECORDED, PARAMS, tmp_path / "run.jsonl") as watch,
    ):
        run(watch, batches(3))


def test_nothing_to_write_is_told_with_the_remedy() -> None:
    with gs.watch(BARE, PARAMS) as watch, pytest.raises(ValueError, match="pass loss="):
        watch(BARE.init(PARAMS))


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_arrays_are_refused_at_once_and_not_at_the_next_reading(name: str) -> None:
    with gs.watch(BARE, PARAMS) as watch, pytest.raises(ValueError, match=f"{name} must be a num"):
        watch(BARE.init(PARAMS), **{"loss": 1.0, name: jnp.ones(3)})


def test_batches_to_be_captured_must_be_passed(tmp_path: Path) -> None:
    with (
        gs.watch(RECORDED, PARAMS, capture_to=tmp_path / "bad") as watch,
        pytest.raises(ValueError, match="pass batch="),
    ):
        watch(RECORDED.init(PARAMS))


@pytest.mark.parametrize("numbers", [{"steps": 0}, {"patience": 0}, {"every": 0}])
def test_numbers_out_of_range_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(numbers))):
        gs.watch(RECORDED, PARAMS, **numbers)


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match="tx"):
        gs.watch(PARAMS, PARAMS)  # type: ignore[arg-type]


def test_panel_has_something_to_show_after_the_first_step() -> None:
    rich = pytest.importorskip("rich.console")
    screen = io.StringIO()
    panel = Console(rich.Console(file=screen, width=100, force_terminal=True), steps=1000)
    with gs.watch(RECORDED, PARAMS, panel=panel) as watch:
        run(watch, batches(1))
        first = screen.getvalue()
        run(watch, batches(40))
    assert "step 1: 1 accepted" in first
    assert "acts above" in screen.getvalue()
    assert "left" in screen.getvalue()


def test_pace_is_that_of_the_last_readings() -> None:
    times = iter([50.0, 50.1, 51.1, 52.1])
    pace = Pace(1_000, clock=lambda: next(times))
    assert not pace.text
    for step in (1, 2, 12, 22):
        pace.at(step)
    # The first reading is that after compilation.
    assert pace.text == "10 steps/s, 0:01:38 left"


def test_page_has_the_optimizer(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with gs.watch(RECORDED, PARAMS, file) as watch:
        run(watch, batches(2))
    header = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert header["config"]["optimizer"].startswith("telemetry.record(guard(")
