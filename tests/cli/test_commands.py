"""The door of the command line: help, unknown commands, missing extras, what is loaded when."""

import subprocess
import sys
from pathlib import Path

import pytest

import gradstable as gs
from gradstable._src.cli import commands, main
from gradstable._src.cli.commands import COMMANDS


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
    assert "'dmeo'" in shown.err
    assert "demo" in shown.err
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


@pytest.mark.parametrize("missing", ["tyro", "sklearn", "flax", "rich", "matplotlib"])
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


def test_extras_are_loaded_by_the_command_only() -> None:
    script = (
        "import sys, gradstable, gradstable.cli\n"
        "gradstable.cli.main([])\n"
        "extras = {'flax', 'sklearn', 'rich', 'tyro', 'matplotlib'}\n"
        "sys.exit(', '.join(extras & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m_gradstable_is_the_same_door() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradstable", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"gradstable {gs.__version__}\n")
