"""The door of the command line: help, unknown commands, missing extras, what is loaded when."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gradstable as gs
from gradstable._src.cli import commands, main
from gradstable._src.cli.commands import COMMANDS
from tests.doctor.expected import RUNS


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    shown = capsys.readouterr()
    assert all(name in shown.out for name in COMMANDS)
    assert not shown.err


def test_main_can_be_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    # A submodule named like the function would take its place at the first call.
    from gradstable._src import cli

    assert [cli.main(["--version"]) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out == f"gradstable {gs.__version__}\n" * 2


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dmeo"]) == 2
    shown = capsys.readouterr()
    assert "there is no command 'dmeo'; did you mean demo?" in shown.err
    assert not shown.out


def test_a_command_of_another_distribution_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "entry_points", lambda group: [])
    assert main(["gauntlet"]) == 2
    assert "it comes with gradstable-gauntlet" in capsys.readouterr().err


def test_other_distributions_add_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sunny.py").write_text("def main(args): print('sunny', *args); return 3\n")
    info = tmp_path / "sunny-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: sunny\nVersion: 1\nSummary: tell the weather\n")
    (info / "entry_points.txt").write_text("[gradstable.commands]\nsunny = sunny:main\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([]) == 0
    assert "sunny tell the weather" in " ".join(capsys.readouterr().out.split())
    assert main(["sunny", "today"]) == 3
    assert capsys.readouterr().out == "sunny today\n"


@pytest.mark.parametrize("missing", ["sklearn", "flax", "rich"])
def test_a_missing_extra_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("gradstable._src.cli.demo", "gradstable._src.report")):
            monkeypatch.delitem(sys.modules, name)
        if name == missing or name.startswith(f"{missing}."):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["demo", "--steps", "1"]) == 1
    error = capsys.readouterr().err
    assert missing in error
    assert "pip install 'gradstable[demo]'" in error
    assert "Traceback" not in error


def test_a_defect_of_our_own_is_not_called_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = COMMANDS["demo"]._replace(module="gradstable._src.cli.no_such_module")
    monkeypatch.setitem(COMMANDS, "demo", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["demo"])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_lists_the_exit_statuses(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*([command] if command else []), "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"\{|None|default: \)|[╭│]", shown), "left over from a generator"
    statuses = shown.partition("exit status:\n")[2]
    assert re.findall(r"^  (\d+) ", statuses, re.MULTILINE)[:3] == ["0", "1", "2"]
    page = Path("docs/command_line.md").read_text()
    assert command in page


def test_statuses_of_the_program_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    page = Path("docs/command_line.md").read_text()
    for status in commands.EXITS:
        assert re.search(rf"^  {status} ", shown, re.MULTILINE)
        assert re.search(rf"(\| |\b){status}\b", page)


def piped(args: str, into: str) -> tuple[int, str]:
    """Run a command in a shell; return its own exit status, and all that was said."""
    line = f'{shlex.quote(sys.executable)} -m gradstable {args} {into}; echo "${{PIPESTATUS[0]}}"'
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    *said, status = (ran.stderr + ran.stdout).splitlines()
    return int(status), "\n".join(said)


def test_a_pipe_that_closes_early_is_no_error_with_a_traceback() -> None:
    """Pitfall: ``doctor --json | head -1`` ended with a BrokenPipeError."""
    # More than a pipe holds, or all could be written before it is closed.
    runs = " ".join(shlex.quote(str(path)) for path in 2 * sorted(RUNS.glob("*.jsonl")))
    assert piped(f"doctor --json {runs}", "| head -1") == (141, "[")
    assert piped("--help", "| true") == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_output_on_a_full_disk_is_told() -> None:
    status, said = piped("--version", "> /dev/full")
    assert status == 1
    assert said == (
        "gradstable --version: cannot write to the standard output: No space left on device"
    )


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradstable._src.cli.doctor.main", interrupted)
    assert main(["doctor", "run.jsonl"]) == 130
    assert capsys.readouterr().err == "\ngradstable doctor: stopped\n"


@pytest.mark.parametrize("command", ["report", "doctor", "autopsy", "replay"])
def test_a_bare_install_is_enough(command: str) -> None:
    extras = ("tyro", "rich", "matplotlib", "flax", "sklearn", "chex")
    script = (
        f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
        f"from gradstable.cli import main\nsys.exit(main(['{command}', '--help']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_extras_are_loaded_by_the_command_only() -> None:
    script = (
        "import sys, gradstable, gradstable.cli\n"
        "gradstable.cli.main([])\n"
        "extras = {'flax', 'sklearn', 'rich', 'matplotlib'}\n"
        "sys.exit(', '.join(extras & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m_gradstable_is_the_same_door() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradstable", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"gradstable {gs.__version__}\n")
