"""The whole command on a task and an optimizer that a user brings."""

import json
import re
import shlex
from pathlib import Path

import pytest
from gradstable_gauntlet import race
from gradstable_gauntlet.entries import choose
from gradstable_gauntlet.results import read
from gradstable_gauntlet.storms import STORMS

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
        (["--tasks", "chess"], "no task 'chess': --list shows all"),
        (["--tasks", "lsmt"], "no task 'lsmt': did you mean 'lstm'? --list shows all"),
        (["--storms", "batch x nan, 2%"], "did you mean 'batch x nan, 1%'?"),
        (["--tasks", "lstm,chess"], "no task 'lstm,chess'"),
        (["--quick", "--full"], "cannot be combined"),
        (["--bring", "absent.py"], "cannot read absent.py: No such file"),
        (["--bring", "."], "cannot read .: Is a directory"),
        (["--bring", "broken.py"], "broken.py, line 2: NameError: name 'missing' is not defined"),
        (["--bring", "typo.py"], "typo.py: SyntaxError"),
        (["--bring", "empty.py"], "empty.py: has neither CONTESTANTS nor TASKS nor STORMS"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["-j", "0"], "--processes must be at least 1, got 0"),
        (["--sedes", "1"], "--sedes is not known here: did you mean --seeds?"),
    ],
)
def test_what_is_wrong_is_said(
    args: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("STORMS = {}\nmissing()\n")
    Path("typo.py").write_text("x = = 1\n")
    Path("empty.py").write_text("")
    assert main(["gauntlet", *args]) == 2
    said = capsys.readouterr().err
    assert told in said.replace(f"{tmp_path}/", "")
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    assert main(["gauntlet", *SMALL, "-o", str(taken)]) == 1
    assert f"cannot write {taken}: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["batch x nan, 1%", "none"],
        ["none,batch x nan, 1%"],
        ["batch x nan, 1% , none"],
        ["none", " none, batch x nan, 1%"],
    ],
)
def test_names_with_commas_may_be_joined_by_commas(given: list[str]) -> None:
    """Pitfall: ``batch x nan, 1%`` is one storm, and ``none,batch x nan, 1%`` are two."""
    assert list(choose("storm", given, STORMS)) == ["none", "batch x nan, 1%"]


def test_lists_what_there_is_as_a_shell_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gauntlet", "--list", "--bring", MINE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line and line[0] != " "] == [
        "--tasks", "--contestants", "--storms"
    ]  # fmt: skip
    named = [line for line in lines if line.startswith("  ") and line[2] != " "]
    first = {shlex.split(re.split("  +", line.strip())[0])[0]: line for line in named}
    for name in ("digits_cnn", "gs.guard(adamw)", "batch x nan, 10%", "signed", "line"):
        assert name in first
    assert first["relu_rnn"].endswith("relu network without gates adds two numbers, T=50,")
