"""``gradstable report`` through the public door: what it writes, says and refuses."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradstable._src.cli import main
from gradstable.report import render
from gradstable.telemetry import Run
from tests.report.running import steps, stormy, write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a.jsonl", stormy(60), name="first")
    write_run(tmp_path / "b.jsonl", steps(40), name="second")
    return tmp_path


@pytest.mark.parametrize("option", ["-o", "--out"])
def test_one_run(option: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "a.jsonl", option, "page.html"]) == 0
    assert (runs / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    shown = capsys.readouterr()
    assert shown.out.startswith("first: Troubled: Rolled back once, at step 31")
    assert "wrote page.html (" in shown.out
    assert not shown.err


def test_the_page_is_called_report_by_default(runs: Path) -> None:
    assert main(["report", "a.jsonl"]) == 0
    assert "<title>first</title>" in (runs / "report.html").read_text(encoding="utf-8")


def test_several_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--compare", "a.jsonl", "b.jsonl", "-o", "both.html", "--title", "A <and> B"]
    assert main(["report", *args]) == 0
    text = (runs / "both.html").read_text(encoding="utf-8")
    assert "<title>A &lt;and&gt; B</title>" in text
    assert "Side by side" in text
    shown = capsys.readouterr().out
    assert "first: " in shown
    assert "second: Calm" in shown


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ([], 2, "pass a file written by gs.telemetry.Log"),
        (["a.jsonl", "--compare", "a.jsonl", "b.jsonl"], 2, "but not both"),
        (["--compare", "a.jsonl"], 2, "two or more files"),
        (["a.jsonl", "b.jsonl"], 2, "gradstable report --compare a.jsonl b.jsonl"),
        (["a.jsonl", "b, c.jsonl"], 2, "gradstable report --compare a.jsonl 'b, c.jsonl'"),
        (["."], 2, "cannot read .: Is a directory"),
        (["a.jsonl", "-o", "a.jsonl"], 2, "would overwrite the run itself"),
        (["none.jsonl"], 2, "cannot read none.jsonl"),
        (["empty.jsonl"], 1, "empty.jsonl is not a record of a run"),
        (["--compare", "a.jsonl", "broken.jsonl"], 1, "broken.jsonl is not a record of a run"),
        (["a.jsonl", "-o", "no/folder/page.html"], 1, "cannot write no/folder/page.html: No such"),
        (["a.jsonl", "-o", "."], 1, "cannot write .: Is a directory"),
        (["a.jsonl", "--otu", "x"], 2, "--otu is not known here: did you mean --out?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    args: list[str],
    status: int,
    message: str,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (runs / "empty.jsonl").write_text("")
    (runs / "broken.jsonl").write_text("{\n" * 9)
    before = (runs / "a.jsonl").read_text()
    assert main(["report", *args]) == status
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err
    assert (runs / "a.jsonl").read_text() == before
    assert not (runs / "report.html").exists()


def test_what_is_broken_in_a_run_is_said_and_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (runs / "b.jsonl").read_text().splitlines()
    (runs / "b.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]))
    assert main(["report", "b.jsonl"]) == 0
    told = "1 line of the file was broken and left out (line 2: cut off)."
    assert told in capsys.readouterr().out
    assert told in (runs / "report.html").read_text(encoding="utf-8")


def grown(file: Path, lines: list[str]) -> Callable[[float], None]:
    """Return a sleep in which the file grows, by half at a time; then Ctrl-C."""
    parts = [lines[: len(lines) // 2], lines]

    def sleep(seconds: float) -> None:
        assert seconds >= 5.0
        if not parts:
            raise KeyboardInterrupt
        file.write_text("\n".join(parts.pop(0)) + "\n")

    return sleep


@pytest.mark.parametrize("ends", [True, False])
def test_watch_waits_for_the_file_and_follows_it_to_its_end(
    ends: bool, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (runs / "a.jsonl").read_text().splitlines()
    lines = lines if ends else lines[:-1]
    seen: list[bool] = []

    def noted(runs: list[Run], **options: Any) -> str:
        seen.append(options["reload"] is not None)
        return render(runs, **options)

    monkeypatch.setattr(time, "sleep", grown(runs / "new.jsonl", lines))
    monkeypatch.setattr("gradstable._src.cli.report.render", noted)
    assert main(["report", "--watch", "new.jsonl"]) == 0
    # The last page does not load itself again: it is final, or nobody writes it again.
    assert seen == ([True, False] if ends else [True, True, False])
    assert "data-reload" not in (runs / "report.html").read_text(encoding="utf-8")
    shown = capsys.readouterr().out
    assert shown.startswith("waiting for new.jsonl\nwrote report.html; it follows the run")
    assert "first: Troubled" in shown


def test_watch_without_a_run_says_so_at_the_end(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert main(["report", "--watch", "none.jsonl"]) == 2
    assert "cannot read none.jsonl" in capsys.readouterr().err
    assert not (runs / "report.html").exists()
