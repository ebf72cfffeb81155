"""The measurement of speed runs from end to end, at sizes that say nothing about speed."""

import json
from pathlib import Path

import pytest

from benchmarks.speed.__main__ import device_line, main
from benchmarks.speed.contestants import CONTESTANTS
from benchmarks.speed.timing import data_sheet
from benchmarks.speed.torch_side import torch_or_none
from benchmarks.speed.trees import trees


def test_it_runs_and_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page, figures = tmp_path / "speed.md", tmp_path / "speed.json"
    what = ["--tiny", "--only", "giant", "--rows", "guard", "--repeats", "1"]
    main([*what, f"--json={figures}", f"--markdown={page}"])
    shown = capsys.readouterr().out
    rows = json.loads(figures.read_text(encoding="utf-8"))["rows"]
    names = ["optax.adamw", "gs.guard(optax.adamw)", "gs.guard(compress_moments(adamw))"]
    assert [row["name"] for row in rows[:-1]] == names
    assert rows[-1]["name"].startswith("torch")
    for row, name in zip(rows, names, strict=False):
        assert name in shown
        assert f"| {name} |" in page.read_text(encoding="utf-8")
        assert row["milliseconds"] > 0
        assert row["words"] >= CONTESTANTS[name].necessary - 0.01
        assert row["recompiles"] == 0
    if torch_or_none() is None:
        assert "torch is not installed" in shown


def test_trees_have_the_sizes_they_tell() -> None:
    sizes = [sum(leaf.size for leaf in tree.values()) for tree in trees().values()]
    assert [round(size / 1e6, 1) for size in sizes] == [41.1, 4.1, 41.6, 41.5, 45.6]


def test_data_sheets_are_found_by_the_kind_of_device() -> None:
    assert data_sheet("NVIDIA H200") == 4.8e12
    assert data_sheet("NVIDIA A100-SXM4-40GB") == 1.55e12
    assert data_sheet("NVIDIA A100-SXM4-80GB") == 2.0e12
    assert data_sheet("cpu") is None
    assert "4.80 TB/s" in device_line("NVIDIA H200", on_gpu=True)
    assert "no GPU" in device_line("cpu", on_gpu=False)
