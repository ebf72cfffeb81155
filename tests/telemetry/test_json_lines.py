"""The file of a run under all that happens to files: full disks, two writers, kill -9."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gradstable._src.telemetry import json_lines as module
from gradstable.doctor import diagnose
from gradstable.telemetry import Header, JsonLines, Log, Run, read_run

HEADER = Header("short", ("['w']",), (3,), ("float32",), {})


def warned() -> Any:
    return pytest.warns(RuntimeWarning, match="cannot be written: ")


def rows(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 1.0 / step, "grad_norm": 1.0, "scale": 1.0, "reason": 0}
        for step in range(first, last + 1)
    ]


def told_of(run: Run) -> list[int]:
    """Return the steps that a file has, or says that it has not."""
    lost = [step for first, last in run.lost for step in range(first, last + 1)]
    return sorted({*run.step.tolist(), *lost})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size; a full disk, as far as a writer can see."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_a_full_disk_held_up_is_written_later(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    sink = JsonLines(file)
    sink.open(HEADER)
    sink.steps(rows(1, 10))
    with largest_file(file.stat().st_size + 250), warned() as told:
        for first in range(11, 111, 10):
            sink.steps(rows(first, first + 9))
        sink.scalars(110, {"accuracy": 0.5})
        sink.note(110, "late")
    assert len(told) == 1, "once is enough"
    # The line that was cut off is read as what it is, until it is finished.
    during = read_run(file)
    assert during.damaged == 1
    assert during.step.tolist() == list(range(1, len(during.step) + 1))
    sink.steps(rows(111, 120))
    sink.close(120)
    run = read_run(file)
    assert run.step.tolist() == list(range(1, 121))
    assert run.notes == ((110, "late"),)
    assert run.scalars["accuracy"].value.tolist() == [0.5]
    assert not run.lost
    assert not run.damaged
    assert run.ended


def test_what_does_not_fit_into_memory_either_is_lost_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 4000)
    file = tmp_path / "run.jsonl"
    sink = JsonLines(file)
    sink.open(HEADER)
    with largest_file(file.stat().st_size + 150), warned():
        for first in range(1, 501, 10):
            sink.steps(rows(first, first + 9))
    sink.steps(rows(501, 510))
    sink.close(510)
    run = read_run(file)
    assert told_of(run) == list(range(1, 511))
    assert 450 < sum(last - first + 1 for first, last in run.lost) < 500
    assert len(run.lost) == 1, "one stretch is one line"
    assert "could not be written: File too large" in run.notes[0].text
    assert not run.damaged
    found = {one.name: one.sentence for one in diagnose(run)}
    assert "steps overwritten before they were read" in found["log_incomplete"]


def test_disk_that_is_full_to_the_end_is_told_of_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    sink = JsonLines(file)
    sink.open(HEADER)
    sink.steps(rows(1, 20))
    with largest_file(file.stat().st_size + 20):
        with warned():
            sink.steps(rows(21, 500))
        with pytest.warns(RuntimeWarning, match=r"could not be written to the end .* to 500\."):
            sink.close(500)
    run = read_run(file)
    assert told_of(run) == list(range(1, 501))
    assert len(run.step) >= 18, "a line or two were given up"
    assert run.ended
    assert not run.damaged


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("broken", ["mkdir", "open", "flock"])
def test_a_disk_that_is_full_at_the_beginning(
    code: int, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Any = getattr(Path, broken, None)

    def fails(place: Any, *args: Any, **options: Any) -> Any:
        if isinstance(place, Path) and tmp_path not in place.parents:
            return whole(place, *args, **options)
        raise OSError(code, os.strerror(code))

    file = tmp_path / "deep" / "run.jsonl"
    sink = JsonLines(file)
    with monkeypatch.context() as patch:
        if broken == "flock":  # a file system without locks, and no reason to complain
            patch.setattr("fcntl.flock", fails)
            sink.open(HEADER)
        else:
            patch.setattr(Path, broken, fails)
            with warned():
                sink.open(HEADER)
        sink.steps(rows(1, 10))
    sink.steps(rows(11, 20))
    sink.close(20)
    run = read_run(file)
    assert run.step.tolist() == list(range(1, 21))
    assert run.name == "short"
    assert run.ended


def test_a_file_that_was_closed_under_the_log_is_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    sink = JsonLines(file)
    sink.open(HEADER)
    sink.steps(rows(1, 3))
    descriptor = sink._file.fileno()
    os.close(descriptor)
    with warned():
        sink.steps(rows(4, 6))
    sink.steps(rows(7, 9))
    sink.close(9)
    run = read_run(file)
    assert run.step.tolist() == list(range(1, 10))
    assert not run.damaged


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_device_that_is_always_full() -> None:
    sink = JsonLines("/dev/full")
    with warned():
        sink.open(HEADER)
    sink.steps(rows(1, 10))
    with pytest.warns(RuntimeWarning, match=r"It lacks steps 1 to 10\."):
        sink.close(10)


@pytest.mark.parametrize("mistake", ["a folder", "below a file"])
def test_a_path_that_can_never_be_written_is_refused_at_once(mistake: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path if mistake == "a folder" else tmp_path / "file" / "run.jsonl"
    with pytest.raises(OSError, match=r"Is a directory|Not a directory|File exists"):
        Log({}, path)


def test_second_writer_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with Log({}, file, name="first") as log:
        log.note(1, "here")
        for append in (False, True):
            with pytest.raises(ValueError, match="is being written by another Log"):
                Log({}, sinks=[JsonLines(tmp_path / "other.jsonl"), JsonLines(file, append=append)])
        log.note(2, "still here")
    assert [note.text for note in read_run(file).notes] == ["here", "still here"]
    # The sink that was opened before the refusal was closed again, and so was this file.
    with Log({}, tmp_path / "other.jsonl"), Log({}, file, name="second"):
        pass
    assert read_run(file).name == "second"


def run_script(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, *words], stdout=subprocess.PIPE, text=True, **options
    )


_WRITER = """\
import os, sys, time
from gradstable.telemetry import Header, JsonLines
from tests.telemetry.test_json_lines import HEADER, rows
sink = JsonLines(sys.argv[1], append="append" in sys.argv)
sink.open(HEADER)
if "fork" in sys.argv:
    if os.fork() == 0:
        time.sleep(30)  # a worker that outlives the run
        os._exit(0)
step = int(sys.argv[2])
while True:
    sink.steps(rows(step, step + 63))
    step += 64
    print(step - 1, flush=True)
"""


def test_killed_while_writing_and_restarted(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    writer = run_script(str(file), "1", "fork", start_new_session=True)
    try:
        told = [int(writer.stdout.readline()) for _ in range(40)]
        with pytest.raises(ValueError, match="is being written by another Log"):
            JsonLines(file, append=True).open(HEADER)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    try:
        flushed = read_run(file)
        assert flushed.step.tolist() == list(range(1, len(flushed.step) + 1))
        assert len(flushed.step) >= told[-1]
        assert flushed.damaged <= 1
        assert not flushed.ended
        # As the kill may leave it: in the middle of a line.
        with file.open("ab") as torn:
            torn.write(b'{"event": "step", "st')
        # The worker of the dead run still lives, and locks nothing.
        sink = JsonLines(file, append=True)
        sink.open(HEADER)
        begin = len(flushed.step) + 1
        sink.steps(rows(begin, begin + 9))
        sink.close(begin + 9)
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.stdout.close()
    run = read_run(file)
    assert run.step.tolist() == list(range(1, begin + 10))
    assert run.damaged == flushed.damaged + 1
    assert run.ended


def test_append_to_what_has_no_header_writes_one(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_bytes(b"\0" * 100)
    sink = JsonLines(file, append=True)
    sink.open(HEADER)
    sink.steps(rows(1, 3))
    sink.close(3)
    run = read_run(file)
    assert run.leaves == ("['w']",)
    assert run.step.tolist() == [1, 2, 3]
    assert run.damaged == 1


def test_append_keeps_a_last_line_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    first = JsonLines(file)
    first.open(HEADER)
    first.steps(rows(1, 3))
    first._file.close()
    file.write_bytes(file.read_bytes()[:-1])
    second = JsonLines(file, append=True)
    second.open(HEADER)
    second.steps(rows(4, 5))
    second.close(5)
    run = read_run(file)
    assert run.step.tolist() == [1, 2, 3, 4, 5]
    assert not run.damaged
