"""The whole command on a task and an optimizer that a user brings."""

import json
from pathlib import Path

import pytest
from gradstable_gauntlet import race
from gradstable_gauntlet.results import read

from gradstable._src.cli import main

MINE = str(Path(__file__).with_name("mine.py"))
SMALL = ("--bring", MINE, "--tasks", "line", "--contestants", "adamw", "signed", "--seeds", "2",
         "--storms", "none", "batch x nan, 1%", "all labels x 2", "-j", "1")  # fmt: skip


def test_writes_results_table_and_page_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gauntlet", *SMALL, "-o", str(tmp_path)]) == 0
    results = read(tmp_path / "results.json")
    assert [cell.contestant for cell in results.cells] == ["adamw", "signed"]
    assert results.cells[0].fates.keys() == {"none", "batch x nan, 1%", "all labels x 2"}
    assert "gauntlet" in results.made["command"]
    assert results.contestants["signed"]["base"] == "adamw"
    for name in ("results.md", "index.html"):
        assert "signed" in (tmp_path / name).read_text()

    def never(job: race.Job) -> None:
        raise AssertionError(job)

    monkeypatch.setattr(race, "run_job", never)
    assert main(["gauntlet", *SMALL, "-o", str(tmp_path)]) == 0  # all read
    with pytest.raises(AssertionError):
        main(["gauntlet", *SMALL, "-o", str(tmp_path), "--fresh"])
    capsys.readouterr()


def test_a_cell_of_another_plan_does_not_count(tmp_path: Path) -> None:
    job = race.Job("line", "adamw", ("none",), (Path(MINE),), race.Plan(rates=(1e-2,), width=5))
    ((_, cell),) = race.run_jobs([job], tmp_path, processes=1)
    (kept,) = tmp_path.iterdir()
    said = json.loads(kept.read_text())
    assert said["cell"]["rate"] == cell.rate == 1e-2
    other = job._replace(plan=job.plan._replace(rates=(1e-1,)))
    ((_, cell),) = race.run_jobs([other], tmp_path, processes=1)
    assert cell.rate == 1e-1


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    plan = race.Plan(rates=(1e-2,), tuning_seeds=(0,), seeds=(100,), width=1)
    job = race.Job("line", "signed", ("none",), (Path(MINE),), plan)
    ((_, one),) = race.run_jobs([job], tmp_path / "one", processes=1)
    ((_, two),) = race.run_jobs([job], tmp_path / "two", processes=2)
    assert two.fates["none"].final == pytest.approx(one.fates["none"].final, rel=1e-4)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--tasks", "chess"], "no task 'chess'; choose from: digits_cnn"),
        (["--quick", "--full"], "cannot be combined"),
        (["--bring", "absent.py"], "absent.py"),
    ],
)
def test_what_is_wrong_is_said(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gauntlet", *args]) == 2
    assert told in capsys.readouterr().err


def test_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gauntlet", "--list", "--bring", MINE]) == 0
    shown = capsys.readouterr().out
    for name in ("digits_cnn", "gs.guard(adamw)", "batch x nan, 10%", "signed", "line"):
        assert name in shown
