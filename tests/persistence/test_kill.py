"""Killed by SIGKILL at ten points, a run ends with the bits of one that was never killed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from sklearn.datasets import load_digits

from tests.persistence import worker
from tests.persistence.kill import KILL_POINTS

ROOT = Path(__file__).parents[2]
# Compiling is most of what a process does here, and speed is none of what is tried.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images, labels = load_digits(return_X_y=True)
    file = tmp_path / "digits.npz"
    np.savez(file, images=(images / 16).astype(np.float32), labels=labels.astype(np.int32))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    return tmp_path


def straight(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a run that nothing kills, in a process that shares nothing with the others."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.persistence.worker", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def expected(process: subprocess.Popen[str], folder: Path) -> dict[int, Any]:
    """Wait for a straight run, and return what it wrote down, by step."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return {line["step"]: line | {"resumed": None} for line in lines(folder)}


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def half_written(folder: Path) -> list[str]:
    return [path.name for path in (folder / "run").glob("*.orbax-checkpoint-tmp")]


@pytest.mark.slow
def test_killed_anywhere_a_run_goes_on_with_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_killed = straight(folder / "straight")
    # The processes that are killed compile by themselves once, and share that.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # A server that has imported everything, and in which JAX never starts, forks them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__])
    killed = folder / "killed"
    killed.mkdir()

    def run(kill_at: str = "") -> int | None:
        target = (killed, worker.one_transform, kill_at)
        process = context.Process(target=worker.train, args=target)
        process.start()
        process.join()
        return process.exitcode

    begins, begin = [], 0
    for name, point in KILL_POINTS.items():
        assert run(name) == -signal.SIGKILL, name
        assert bool(half_written(killed)) == point.half_written, name
        if name != "while loading":  # which is before the first line is written
            begins.append(begin)
        begin = point.resumes
        if name == "all written, not committed":
            shutil.copytree(killed, folder / "uncommitted")
    # The last point leaves a finished checkpoint behind of which a part is gone.
    assert 0 < files(killed / "run" / "4") < files(killed / "run" / "8")
    assert run() == 0

    wanted = expected(never_killed, folder / "straight")
    written = lines(killed)
    assert [line["step"] for line in written if line["resumed"]] == [*begins, begin]
    for line in written:
        assert line | {"resumed": None} == wanted[line["step"]]
    assert written[-1]["step"] == worker.STEPS
    check_uncommitted(folder / "uncommitted" / "run")


def check_uncommitted(run: Path) -> None:
    """Show that all of a checkpoint but its name is not enough to be loaded."""
    assert (run / "8.orbax-checkpoint-tmp" / "state" / "_METADATA").exists()
    with ocp.training.Checkpointer(run) as checkpointer:
        assert [found.step for found in checkpointer.checkpoints] == [4]
        with pytest.raises(FileNotFoundError, match="step 8"):
            checkpointer.load_checkpointables(8)
    with pytest.raises(ValueError, match="8"):
        ocp.load_checkpointables(run / "8")


@pytest.mark.slow
def test_every_recipe_and_wrapper_goes_on_with_the_same_bits(folder: Path) -> None:
    never_killed = straight(folder / "straight", "--all")
    killed = folder / "killed"
    died = straight(killed, "--all", "--kill", "right after a save")
    died.communicate()
    assert died.returncode == -signal.SIGKILL
    os.rename(killed / "log.jsonl", folder / "first.jsonl")
    again = subprocess.run(
        [sys.executable, "-m", "tests.persistence.worker", str(killed), "--all"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    wanted = expected(never_killed, folder / "straight")
    assert {*worker.all_transforms()} < {*wanted[0]["digests"]}
    written = lines(killed)
    assert [line["step"] for line in written] == [*range(8, worker.STEPS + 1)]
    for line in written:
        assert line | {"resumed": None} == wanted[line["step"]]
