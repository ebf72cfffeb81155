"""``gradstable doctor`` through the public door: what it says, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from gradstable._src.cli import main
from tests.doctor.expected import EXPECTED, RUNS


def test_a_diagnosis_comes_with_its_evidence_and_advice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", str(RUNS / "missing_value_bare.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "missing_value_bare: 120 steps recorded, 1 to 120" in shown
    assert shown.index("1. broken_loss (serious)") < shown.index("2. diverged (fatal)")
    assert "(rule: >= 1)" in shown
    assert "Advice: " in shown
    assert max(map(len, shown.splitlines())) <= 96
    # Who exploded first stands at the end.
    assert "exploded first" in shown.strip().splitlines()[-1]


def test_a_healthy_run_is_called_so_and_nobody_is_blamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", str(RUNS / "letters.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "1. healthy\n" in shown
    assert "exploded" not in shown


def test_a_layer_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(RUNS / "shrinking_layer.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "['dense_1']['kernel']" in shown
    assert "exploded first" not in shown


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(RUNS / f"{name}.jsonl") for name in EXPECTED]
    assert main(["doctor", *paths, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [report["path"] for report in reports] == paths
    for report in reports:
        found = report["diagnoses"]
        assert tuple(one["name"] for one in found) == EXPECTED[report["run"]]
        assert found[0].keys() == {"name", "severity", "sentence", "evidence", "advice"}
        assert found[0]["evidence"][0].keys() == {"measure", "value", "relation", "threshold"}


def test_files_with_commas_and_spaces_and_options_between_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "a, b's run.jsonl"
    shutil.copy(RUNS / "letters.jsonl", odd)
    assert main(["doctor", str(odd), "--json", str(RUNS / "frozen.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)[0]["path"] == str(odd)


def test_what_can_be_read_is_judged_beside_what_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    good = [str(RUNS / f"{name}.jsonl") for name in ("letters", "frozen")]
    assert main(["doctor", good[0], str(tmp_path / "binary.jsonl"), good[1]]) == 1
    shown = capsys.readouterr()
    assert shown.out.index("letters: ") < shown.out.index("frozen: ")
    assert "binary.jsonl is not a record of a run" in shown.err
    assert main(["doctor", str(tmp_path / "none.jsonl"), *good]) == 2
    shown = capsys.readouterr()
    assert "frozen: " in shown.out
    assert "none.jsonl: No such file" in shown.err


def test_the_exit_status_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "0   all files were read, whatever was found in them" in capsys.readouterr().out


def test_what_is_not_a_terminal_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(RUNS.glob("*.jsonl")):
        main(["doctor", str(path)])
    assert capsys.readouterr().out.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ([], 2, "pass a file written by gs.telemetry.Log"),
        (["none.jsonl"], 2, "cannot read none.jsonl"),
        (["."], 2, "cannot read .: Is a directory"),
        (["empty.jsonl"], 1, "is not a record of a run"),
        (["broken.jsonl"], 1, "broken.jsonl is not a record of a run"),
        (["foreign.jsonl"], 1, "foreign.jsonl is not a record of a run"),
        (["good.jsonl", "--jsno"], 2, "--jsno is not known here: did you mean --json?"),
        (["good.jsonl", "-x"], 2, "-x is not known here"),
        (["good.jsonl", "--js"], 2, "--js is not known here: did you mean --json?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    args: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(RUNS / "letters.jsonl", "good.jsonl")
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text("{\n" * 9)
    Path("foreign.jsonl").write_text('{"event": "step", "step": 1}\n')
    assert main(["doctor", *args]) == status
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err


def test_what_is_broken_in_a_run_is_said_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (RUNS / "letters.jsonl").read_text().splitlines()
    file = tmp_path / "run.jsonl"
    file.write_text("\n".join([lines[0], "{", *lines[1:], '{"event": "step"}']))
    assert main(["doctor", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "120 steps recorded, 1 to 120, 2 broken lines left out" in shown
    assert "- broken lines: 2 (rule: >= 1)" in shown
    assert main(["doctor", str(file), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["broken_lines"] == 2
    assert report["remarks"] == ["line 2: cut off", f"line {len(lines) + 2}: step is broken"]


def test_a_run_without_steps_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = (RUNS / "letters.jsonl").read_text().splitlines()[0]
    (tmp_path / "begun.jsonl").write_text(header + "\n")
    assert main(["doctor", str(tmp_path / "begun.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "no steps recorded" in shown
    assert "too_short (note)" in shown
    assert "healthy" not in shown
