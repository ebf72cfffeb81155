"""The first tasks of a new user: each works, in as few lines as promised."""

import difflib
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import gradstable as gs
from examples.protect_a_loop import find_bad_batch, resume

HERE = Path(__file__).parent
LOOPS = ("nnx", "equinox", "ppo")
# Without log and report, these lines are not needed.
WATCHES = re.compile(r"gs\.watch|watch\(|value=loss|value_and_grad|wrt=nnx\.Param")


def changed(name: str) -> list[str]:
    """Return the lines that protection, log and report add or change, apart from indentation."""
    before, after = (
        [line.strip() for line in (HERE / f"{name}_{kind}.py").read_text().splitlines()]
        for kind in ("bare", "protected")
    )
    lines = [line[2:] for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    return [line for line in lines if line and not line.startswith('"""')]


def module(name: str, kind: str) -> Any:
    return importlib.import_module(f"examples.protect_a_loop.{name}_{kind}")


@pytest.mark.parametrize("name", LOOPS)
def test_it_takes_few_lines(name: str) -> None:
    lines = changed(name)
    assert len(lines) <= 6, lines
    assert len([line for line in lines if not WATCHES.search(line)]) <= 3
    table = (HERE / "README.md").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if f"`{name}_bare.py`" in line)
    assert row.rstrip("| ").endswith(str(len(lines)))


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_survives_and_leaves_its_report(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare, protected = module(name, "bare").main(), module(name, "protected").main()
    if name == "ppo":  # a policy of NaN goes on, and loses
        assert bare < 0.05
        assert protected > 0.09
    else:
        assert math.isnan(bare)
        assert protected < 0.1
    run = gs.telemetry.read_run("run.jsonl")
    assert run.rejected.any()
    assert np.isfinite(run.loss[-1])
    assert Path("run.html").exists()


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "examples.protect_a_loop.resume", tmp_path / "killed", "137"],
        check=False,
        cwd=HERE.parents[1],
    )
    assert killed.returncode == -9
    again = resume.main(tmp_path / "killed")
    whole = resume.main(tmp_path / "whole")
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    runs = [gs.telemetry.read_run(tmp_path / name / "run.jsonl") for name in ("killed", "whole")]
    for run in runs:
        assert run.step.tolist() == list(range(1, resume.STEPS + 1))
    np.testing.assert_array_equal(runs[0].loss, runs[1].loss)


def test_the_bad_batch_of_a_recorded_run_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find_bad_batch.train(tmp_path)
    cause = find_bad_batch.look(tmp_path).cause
    assert "rejected: step [121]" in capsys.readouterr().out
    assert cause is not None
    assert cause.code == 'features = jnp.sqrt(x @ jnp.abs(params["in"]))'
    assert cause.examples == (7,)
