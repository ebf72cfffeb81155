"""``gradstable autopsy`` and ``gradstable replay``: from a folder to a report, or to a sentence."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradstable as gs
from gradstable._src.cli import main

TRAIN = """
import jax
import jax.numpy as jnp
import optax
import gradstable as gs

tx = gs.record(gs.guard(optax.adam(1e-2)))
number = 3

def loss_fn(params, batch):
    return jnp.mean(jnp.sqrt(batch["x"] @ params["w"]))

def with_key(params, batch, key):
    return loss_fn(params, batch) + 0 * jax.random.normal(key), "more"

@jax.jit
def step(params, opt_state, batch):
    loss, gradient = jax.value_and_grad(loss_fn)(params, batch)
    updates, opt_state = tx.update(gradient, opt_state, params, value=loss)
    return optax.apply_updates(params, updates), opt_state, loss

@jax.jit
def other(params, opt_state, batch):
    return step(params, opt_state, {"x": jnp.abs(batch["x"])})

class nested:
    loss = staticmethod(loss_fn)

def broken(params, batch):
    raise KeyError("of my own")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a training script and what it has captured."""
    root = tmp_path_factory.mktemp("run")
    (root / "captured_train.py").write_text(TRAIN)
    (root / "captured_broken.py").write_text("import captured_nowhere\n")
    sys.path.insert(0, str(root))
    train: Any = __import__("captured_train")
    sys.path.remove(str(root))
    params = {"w": np.ones(2, np.float32)}
    state, rng = train.tx.init(params), np.random.default_rng(0)
    with gs.capture(root / "bad", every=1) as capture:
        for number in range(1, 4):
            x = rng.uniform(size=(8, 2)).astype(np.float32)
            x[5] *= -1.0 if number == 2 else 1.0
            params, state, _ = train.step(params, state, {"x": x})
            capture(state, {"x": x}, params=params, rng=None if number else 0)
    yield root
    sys.modules.pop("captured_train", None)


@pytest.fixture
def event(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    return "bad/step-00000002-rejected"


def test_the_operation_is_found(event: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = list(sys.path)
    assert main(["autopsy", event, "--fn", "captured_train:loss_fn"]) == 0
    shown = capsys.readouterr().out
    assert "Step 2, rejected: the gradient had NaN or infinite entries." in shown
    assert "captured_train.py:11, in loss_fn" in shown
    assert "operation sqrt" in shown
    assert "example: 5" in shown
    assert sys.path == path
    assert main(["autopsy", event, "--fn", "captured_train:nested.loss"]) == 0


def test_the_step_runs_again_and_what_was_measured_is_compared(
    event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", event, "--fn", "captured_train:step", "--times", "3"]) == 0
    shown = capsys.readouterr().out
    assert "The step ran 3 times on" in shown
    assert "The data or the model is at fault, and not the machine." in shown
    assert "Then, loss was nan, and it is the same now." in shown
    # A machine that made a NaN of a sound batch: without the fault, the loss is finite.
    assert main(["replay", event, "--fn", "captured_train:other"]) == 0
    shown = capsys.readouterr().out
    assert "Then, loss was nan, and it is not the same now: " in shown
    assert "So the machine was at fault then" in shown


def test_another_order_and_a_function_with_more(
    folder: Path, event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    captured = gs.read_capture(event)
    with gs.capture(folder / "key", every=1) as capture:
        capture(captured.opt_state, captured.batch, params=captured.params, rng=np.uint32([0, 1]))
    (name,) = (path.name for path in capture.folders)
    options = ["--fn", "captured_train:with_key", "--has-aux"]
    assert main(["autopsy", f"key/{name}", *options]) == 0
    assert "operation sqrt" in capsys.readouterr().out
    assert main(["autopsy", f"key/{name}", *options, "--args", "params", "batch", "rng"]) == 0
    assert main(["autopsy", f"key/{name}", *options, "--args", "params", "batch"]) == 1
    assert "--args says which parts" in capsys.readouterr().err


def test_parameters_of_later_steps_are_not_compared(
    event: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    for file in Path(event).iterdir():
        (later / file.name).write_bytes(file.read_bytes())
    described = json.loads((later / "event.json").read_text())
    (later / "event.json").write_text(json.dumps({**described, "exact": False, "later": 3}))
    assert main(["replay", str(later), "--fn", "captured_train:step"]) == 0
    shown = capsys.readouterr().out
    assert "those 3 steps later" in shown
    assert "cannot be compared" in shown


@pytest.mark.parametrize("command", ["autopsy", "replay"])
@pytest.mark.parametrize(
    ("where", "fn", "status", "message"),
    [
        ("none", "captured_train:loss_fn", 2, "cannot read none: No such file or directory"),
        (".", "captured_train:loss_fn", 2, "is not a capture: pass a folder"),
        ("bad", "captured_train:loss_fn", 2, "bad has 1 captures, so pass the folder of one"),
        ("EVENT", "captured_train", 2, "--fn must be module:function"),
        ("EVENT", "captured_trian:loss_fn", 2, "cannot import captured_trian: ModuleNotFound"),
        ("EVENT", "captured_broken:step", 2, "No module named 'captured_nowhere'"),
        ("EVENT", "captured_train:loss_fm", 2, "no loss_fm; did you mean loss_fn?"),
        ("EVENT", "captured_train:number", 2, "is not a function, but of type int"),
        ("EVENT", "captured_train:broken", 1, "captured_train:broken("),
        ("PARAMS", "captured_train:loss_fn", 2, "no params kept in this capture: pass params="),
        ("BATCH", "captured_train:loss_fn", 2, "no batch kept in this capture"),
        ("GONE", "captured_train:loss_fn", 2, "batch.npz: No such file"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    command: str,
    where: str,
    fn: str,
    status: int,
    message: str,
    event: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if where.isupper():
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in Path(event).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        described = json.loads((copy / "event.json").read_text())
        if where in ("PARAMS", "BATCH"):
            described["parts"].remove(where.lower())
        (copy / "event.json").write_text(json.dumps(described))
        if where == "GONE":
            (copy / "batch.npz").unlink()
        where = str(copy)
    assert main([command, where, "--fn", fn]) == status
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith(f"gradstable {command}: ")
    assert len(shown.err.splitlines()) == 1
    assert "Traceback" not in shown.err + shown.out


@pytest.mark.parametrize("command", ["autopsy", "replay"])
def test_the_options_are_in_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "0   there is a report, whatever it says" in capsys.readouterr().out
    assert main([command]) == 2
    assert "folder" in capsys.readouterr().err.lower()
