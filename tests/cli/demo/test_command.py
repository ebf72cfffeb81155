"""The demo through its public door: what it writes, what it claims, and how it refuses."""

from pathlib import Path

import numpy as np
import pytest

import gradstable as gs
from gradstable._src.cli.demo.command import spans
from gradstable._src.cli.demo.faults import STORM, bad_steps
from gradstable.cli import main

# Measured over seeds 0 to 19: accuracy without faults >= 98.0 %, guarded run within 0.7 points,
# at most 2 of 500 good steps touched.
LEAST_ACCURACY, MOST_LOST, MOST_TOUCHED = 0.96, 0.01, 0.01
FILES = {
    "guard.jsonl",
    "adamw.jsonl",
    "clip_apply_if_finite.jsonl",
    "guard_no_faults.jsonl",
    "adamw_no_faults.jsonl",
}


def run_demo(folder: Path, *args: str) -> dict[str, gs.telemetry.Run]:
    assert main(["demo", "--out", str(folder), *args]) == 0
    return {file.removesuffix(".jsonl"): gs.telemetry.read_run(folder / file) for file in FILES}


def accuracy(run: gs.telemetry.Run) -> float:
    return run.scalars["test_accuracy"].value[-1]


def check_claims(runs: dict[str, gs.telemetry.Run]) -> None:
    guard, reference = runs["guard"], runs["adamw_no_faults"]
    assert accuracy(reference) >= LEAST_ACCURACY
    assert abs(accuracy(guard) - accuracy(reference)) <= MOST_LOST
    assert guard.step[guard.rejected].tolist() == bad_steps(STORM)
    assert guard.clipped.mean() <= MOST_TOUCHED
    assert "['conv1']['kernel']" in guard.leaves

    healthy = runs["guard_no_faults"]
    assert (healthy.rejected | healthy.clipped).mean() <= MOST_TOUCHED
    assert abs(accuracy(healthy) - accuracy(reference)) <= MOST_LOST

    # Without a guard, one NaN pixel is the end of the run.
    assert accuracy(runs["adamw"]) < 0.2
    assert np.isnan(runs["adamw"].loss[120:]).all()


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    runs = run_demo(folder)
    check_claims(runs)
    assert {len(run.step) for run in runs.values()} == {500}
    assert [note.text for note in runs["guard"].notes] == [f"planted: {f.text}" for f in STORM]

    shown = capsys.readouterr().out
    assert f"{100 * accuracy(runs['guard']):.2f} %" in shown
    assert "The guard rejected steps 20, 120, 220-223, 320-327: exactly the bad ones." in shown
    assert "14 rejected" in shown  # as gs.explain says
    assert f"wrote {folder / 'demo.html'}" in shown
    assert shown.count("\n") < 60  # no flood where nobody watches
    page = (folder / "demo.html").read_text(encoding="utf-8")
    for run in runs.values():
        assert run.name in page
        assert run.config["optimizer"] in page


def test_a_short_run_writes_over_its_own_files_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "guard.jsonl").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    runs = run_demo(tmp_path, "--steps", "22", "--seed", "7")
    shown = capsys.readouterr().out
    assert "The guard rejected step 20: exactly the bad ones." in shown
    assert f"wrote {tmp_path / 'demo.html'}" in shown
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "demo.html", "mine.txt"}
    assert (tmp_path / "mine.txt").read_text() == "mine"
    guard, adamw = runs["guard"], runs["adamw"]
    assert guard.step.tolist() == list(range(1, 23))
    assert guard.step[guard.rejected].tolist() == [20]
    # Before the first fault, the two do the same.
    assert guard.loss[:20] == pytest.approx(adamw.loss[:20], rel=1e-3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--steps", "-3"], "--steps must be at least 1, got -3"),
        (["--seed", "-1"], "--seed must be between"),
        (["--seed", str(2**32)], "--seed must be between"),
        (["--steps", "2.5"], "2.5"),
        (["--steps", "many"], "many"),
        (["--stpes", "3"], "--stpes"),
    ],
)
def test_bad_arguments_are_refused(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), *args]) == 2
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert not out.exists()


@pytest.mark.parametrize("where", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_written_is_named_before_training(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", "--out", str(tmp_path / where)]) == 2
    shown = capsys.readouterr()
    assert "cannot write to --out" in shown.err
    assert not shown.out


def test_help_tells_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--seed", "--steps", "--out"))


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], ""),
        ([20], "20"),
        ([3, 2, 1], "1-3"),
        ([20, 120, 220, 221, 223], "20, 120, 220-221, 223"),
    ],
)
def test_runs_of_steps_are_joined(steps: list[int], text: str) -> None:
    assert spans(steps) == text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_the_demo_keeps_its_promises_with_other_seeds(seed: int, tmp_path: Path) -> None:
    check_claims(run_demo(tmp_path, "--seed", str(seed)))
