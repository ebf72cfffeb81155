"""The demo through its public door: what it writes, what it claims, and how it refuses."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from rich.console import Console

from gradstable._src.cli import main
from gradstable._src.cli.demo import command
from gradstable._src.cli.demo.faults import STORM, bad_steps

# Measured over seeds 0 to 19: accuracy without faults >= 98.0 %, guarded run within 0.7 points,
# at most 2 of 500 good steps touched.
LEAST_ACCURACY, MOST_LOST, MOST_TOUCHED = 0.96, 0.01, 0.01
PATHS = {
    f"['{layer}']['{part}']"
    for layer in ("conv1", "conv2", "dense", "head")
    for part in ("kernel", "bias")
}


class Page(HTMLParser):
    """Collects the tags of a page and every place from which it would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        loading = {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}
        self.sources += [value or "" for name, value in attrs if name in loading]

    def handle_data(self, data: str) -> None:
        self.text += data


def read_json(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "demo.json").read_text(), parse_constant=refuse)


def check_page(folder: Path, *, seed: int, steps: int) -> None:
    text = (folder / "demo.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    prefix = "data:image/svg+xml;base64,"
    assert len(page.sources) == 2
    for source in page.sources:
        assert source.startswith(prefix)
        svg = base64.b64decode(source.removeprefix(prefix), validate=True).decode()
        assert svg.startswith("<svg")
        assert all(ref.startswith("#") for ref in re.findall(r'href="([^"]*)"', svg))
        assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", svg))
    assert f"gradstable demo --seed {seed} --steps {steps}" in page.text
    assert "prefers-color-scheme: dark" in text
    assert "$" not in page.text
    raw = read_json(folder)
    for contestant in raw["contestants"].values():
        assert contestant["name"] in page.text
        assert contestant["code"] in page.text
    assert raw["contestants"]["guard"]["explanation"] in page.text


def check_claims(raw: dict[str, Any]) -> None:
    runs = raw["contestants"]
    guard, reference = runs["guard"], runs["adamw_clean"]
    assert reference["test_accuracy"] >= LEAST_ACCURACY
    assert abs(guard["test_accuracy"] - reference["test_accuracy"]) <= MOST_LOST
    assert guard["rejected_steps"] == bad_steps(STORM)
    assert len(guard["clipped_steps"]) <= MOST_TOUCHED * raw["steps"]
    assert guard["first_bad_leaf"] in PATHS

    healthy = runs["guard_clean"]
    touched = len(healthy["rejected_steps"]) + len(healthy["clipped_steps"])
    assert touched <= MOST_TOUCHED * raw["steps"]
    assert abs(healthy["test_accuracy"] - reference["test_accuracy"]) <= MOST_LOST

    # Without a guard, one NaN pixel is the end of the run.
    assert runs["adamw"]["test_loss"] is None
    assert runs["adamw"]["test_accuracy"] < 0.2
    assert runs["adamw"]["series"]["loss"][119:] == [None] * (raw["steps"] - 119)


def run_demo(folder: Path, *args: str) -> dict[str, Any]:
    assert main(["demo", "--out", str(folder), *args]) == 0
    return read_json(folder)


def test_the_demo_keeps_its_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    raw = run_demo(folder)
    check_claims(raw)
    check_page(folder, seed=0, steps=500)
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert raw["leaves"] == sorted(PATHS)
    assert [fault["steps"] for fault in raw["faults"]] == [list(f.steps) for f in STORM]
    for run in raw["contestants"].values():
        assert {len(values) for values in run["series"].values()} == {500}
        assert run["evaluations"]["accuracy"][-1] == run["test_accuracy"]

    shown = capsys.readouterr().out
    guard = raw["contestants"]["guard"]
    assert guard["explanation"] in shown
    assert guard["first_bad_leaf"] in shown
    assert f"{100 * guard['test_accuracy']:.2f} %" in shown
    assert "the guard rejected steps 20, 120, 220-223, 320-327: exactly these." in shown
    for name in ("demo.png", "demo.html", "demo.json"):
        assert f"wrote {folder / name}" in shown
    assert shown.count("\n") < 60  # no flood where nobody watches


def test_a_short_run_writes_over_its_own_files_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.json").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    raw = run_demo(tmp_path, "--steps", "22", "--seed", "7")
    assert (raw["seed"], raw["steps"]) == (7, 22)
    assert raw["contestants"]["guard"]["rejected_steps"] == [20]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "demo.html",
        "demo.json",
        "demo.png",
        "mine.txt",
    ]
    assert (tmp_path / "mine.txt").read_text() == "mine"
    check_page(tmp_path, seed=7, steps=22)
    # Before the first fault, every contestant but the clipped one does the same.
    losses = [raw["contestants"][key]["series"]["loss"][:20] for key in ("adamw", "guard")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert "Traceback" not in capsys.readouterr().err


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


def test_the_table_fits_into_80_columns_with_whole_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ("clip + apply_if_finite", "0.123", "99.99 %", "14", "116", "['dense']['kernel']")
    monkeypatch.setattr(command, "table", lambda race: [row])
    screen = io.StringIO()
    Console(file=screen, width=80).print(command._grid(cast(Any, None)))
    words = screen.getvalue().split()
    assert {"apply_if_finite", "accuracy", "rejected", "99.99", row[-1]} <= set(words)
    assert "…" not in screen.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_the_demo_keeps_its_promises_with_other_seeds(seed: int, tmp_path: Path) -> None:
    check_claims(run_demo(tmp_path, "--seed", str(seed)))
