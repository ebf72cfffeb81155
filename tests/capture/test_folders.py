"""Folders on disk: complete or not there, also after a kill; what is broken is refused in words."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.capture.folders import Shelf, captures_in
from gradstable._src.capture.trees import encode
from tests.capture import killed

ROOT = Path(__file__).parents[2]


def one(folder: Path) -> Path:
    """Write a capture, and return its folder."""
    tx = gs.guard(optax.sgd(0.1))
    params = {"w": jnp.ones(2)}
    _, state = tx.update({"w": jnp.full(2, jnp.nan)}, tx.init(params), params)
    with gs.capture(folder, every=1) as capture:
        capture(state, {"x": np.ones(3)}, params=params)
    return capture.folders[0]


def test_killed_at_any_moment_there_is_a_whole_capture_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.capture.killed", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    points = int(done.stdout)
    assert points > 12
    halves, kept = 0, set()
    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        names = [path.name for path in folder.iterdir()]
        halves += any(name.startswith(".half") for name in names)
        for path in captures_in(folder):
            found = gs.read_capture(path)
            kept.add(found.step)
            assert np.array_equal(found.batch["x"], np.full((64, 64), found.step))
            assert np.array_equal(found.params["x"], found.batch["x"])
        # The next process removes what is left, and writes.
        shelf = Shelf(folder, max_events=1, max_bytes=2**20)
        shelf.put("step-00000003-rejected", killed.event(3), killed.trees(3.0))
        assert [path.name for path in folder.iterdir()] == ["step-00000003-rejected"]
    assert halves > 5
    assert kept == {1, 2}


def test_what_another_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    first = Shelf(tmp_path, max_events=2, max_bytes=2**20)
    host = os.uname().nodename
    busy = tmp_path / f".half-{host}-{os.getppid()}-step-00000001-rejected"
    elsewhere = tmp_path / ".half-another-host-1-step-00000001-rejected"
    busy.mkdir()
    elsewhere.mkdir()
    (tmp_path / "notes").mkdir()
    first.put("step-00000003-rejected", killed.event(3), killed.trees(3.0))
    assert busy.exists()
    assert elsewhere.exists()
    assert (tmp_path / "notes").exists()


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    names = [one(tmp_path).name for _ in range(3)]
    assert names == [f"step-00000001-rejected{end}" for end in ("", "-2", "-3")]


def test_the_parts_of_several_processes_are_put_together(tmp_path: Path) -> None:
    whole = np.arange(8.0).reshape(4, 2)
    for process in range(2):
        shelf = Shelf(tmp_path, max_events=2, max_bytes=2**20)
        shelf._suffix = f"-process-{process}"  # as in a job with two processes
        half = whole[2 * process : 2 * process + 2]
        tree = encode({"x": half, "own": process})
        part = {"start": [2 * process, 0], "shape": [2, 2], "n": tree.node["items"][0][1].pop("n")}
        tree.node["items"][0][1].update(shape=[4, 2], parts=[part])
        event = {**killed.event(5), "parts": ["batch"]}
        shelf.put("step-00000005-rejected", event, {"batch": tree})
        assert len(shelf.mine()) == 1
    for process in range(2):
        path = tmp_path / f"step-00000005-rejected-process-{process}"
        found = gs.read_capture(path)
        assert np.array_equal(found.batch["x"], whole)
        assert found.batch["own"] == process
    shutil.rmtree(path)
    found = gs.read_capture(tmp_path / "step-00000005-rejected-process-0")
    assert np.array_equal(found.batch["x"], whole[:2])


def test_what_is_no_capture_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gs.read_capture(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is not a capture: pass a folder"):
        gs.read_capture(tmp_path / "empty")
    first, second = one(tmp_path / "two"), one(tmp_path / "two")
    with pytest.raises(ValueError, match=r"two has 2 captures, so pass the folder of one: step-"):
        gs.read_capture(tmp_path / "two")
    assert second.name == "step-00000001-rejected-2"
    event = json.loads((first / "event.json").read_text())
    for text, match in (
        ("{", "is not the description of a capture"),
        ("[]", "is not the description of a capture"),
        (json.dumps({**event, "format": 99}), "has format 99"),
        (json.dumps({**event, "numbers": 3}), "is not a capture that can be read"),
    ):
        (first / "event.json").write_text(text)
        with pytest.raises(ValueError, match=match):
            gs.read_capture(first)
    (second / "batch.json").write_text('{"is": "array", "n": 99}')
    with pytest.raises(ValueError, match="is not a capture that can be read"):
        gs.read_capture(second)


def test_a_pickle_in_a_file_is_not_opened(tmp_path: Path) -> None:
    path = one(tmp_path)
    evil = np.empty(1, object)
    evil[0] = {"a": 1}
    np.savez(path / "batch.npz", allow_pickle=True, **{"0": evil})
    with pytest.raises(ValueError, match="pickle"):
        gs.read_capture(path)
