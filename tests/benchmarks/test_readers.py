"""The measurement of the readers runs from end to end, at a size that says nothing."""

from pathlib import Path

import pytest

from benchmarks import readers
from gradstable.doctor import diagnose
from gradstable.telemetry import read_run


def test_the_run_has_all_that_a_long_one_has(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    readers.write_run(path, steps=21_000, leaves=3)
    run = read_run(path)
    assert not run.damaged
    assert run.ended
    assert len(run.step) == 21_000 - len(run.lost) > 0
    assert len(run.leaf_steps) == 21_000 // readers.LEAF_EVERY - 1  # one of the lost steps had them
    assert 0 < run.rejected.sum() < run.clipped.sum() < 2_000
    assert len(run.scalars) == readers.SCALARS
    assert len(run.notes) == 1
    assert (run.alarms > 0).any()
    assert "bad_batches" in {one.name for one in diagnose(run)}


@pytest.mark.slow
def test_each_reader_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["readers", "--steps", "300", "--leaves", "2"])
    readers.main()
    shown = capsys.readouterr().out
    assert "300 steps, 2 leaves" in shown
    assert all(name in shown for name in ("read_run", "doctor", "report"))
