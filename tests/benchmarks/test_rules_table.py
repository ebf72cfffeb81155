"""The table of rules: complete, the same in every run, and with the figures that are told."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

import gradstable as gs
from benchmarks import rules_table
from benchmarks.rules_table import CONTESTANTS, EXCLUDED, HEADINGS, Row, rows

BARE_ZSCORE = "zscore(max_norm=None)"


def row(label: str) -> Row:
    return rows()[label]


def table_in(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|")]


def test_every_rule_is_in_the_table_or_excluded_with_a_reason() -> None:
    made = {
        name
        for name in gs.rules.__all__
        if inspect.isfunction(rule := getattr(gs.rules, name))
        and "Rule" in str(inspect.signature(rule).return_annotation)
    }
    shown = {contestant.rule for contestant in CONTESTANTS}
    assert not shown & EXCLUDED.keys()
    assert made <= shown | EXCLUDED.keys()


def test_numbers_are_the_same_in_every_run() -> None:
    rule = gs.rules.log_mad
    assert rules_table.row(rule()) == rules_table.row(rule())


@pytest.mark.parametrize("label", [contestant.label for contestant in CONTESTANTS])
def test_nan_poisons_no_rule(label: str) -> None:
    assert row(label).finite
    assert row(label).after_nan == 0


@pytest.mark.parametrize(
    ("label", "clipped"),
    [
        ("global_norm(1)", (50, 50, 50)),
        ("percentile(10)", (90, 90, 90)),
        ("percentile(90)", (10, 10, 10)),
        (BARE_ZSCORE, (2, 3.5, 6.6)),
        ("adagc()", (49, 75, 87)),
        ("window_sigma()", (0, 0, 0)),
        ("ema_multiple()", (0, 0, 0)),
        ("log_mad()", (0.0, 0.0, 0.1)),
    ],
)
def test_share_of_healthy_steps_that_are_clipped(label: str, clipped: tuple[float, ...]) -> None:
    np.testing.assert_allclose(row(label).clipped, clipped, rtol=0.04, atol=0.8)
    assert max(row(label).rejected) <= 0.3


@pytest.mark.parametrize(
    ("label", "one", "ten"),
    [
        ("global_norm(1)", 1.0, 1.0),
        ("percentile(10)", 0.77, 0.77),
        ("percentile(90)", 1.3, 1.3),
        (BARE_ZSCORE, 1.0, 1.0),
        ("adagc()", 0.9, 0.9),
        ("window_clip()", 1.6, 838),
        ("window_sigma()", 0.0, 1_000),
        ("ema_multiple()", 0.0, 0.0),
        ("log_mad()", 0.0, 0.0),
        ("group_norm()", 900, 900),
        ("gradient_stabilizer()", 12.7, 14.3),
    ],
)
def test_what_is_left_of_spikes(label: str, one: float, ten: float) -> None:
    assert row(label).one == pytest.approx(one, rel=0.08)
    assert row(label).ten == pytest.approx(ten, rel=0.08)


@pytest.mark.parametrize(
    ("label", "least", "most"),
    [
        ("log_mad()", 0, 4),
        ("ema_multiple()", 80, 90),
        (BARE_ZSCORE, 1, 1.5),
        ("percentile(90)", 45, 55),
        ("window_clip()", 70, 100),
        ("window_sigma()", 70, 100),
        ("zscore(max_norm=None, mode=percentile)", 60, 100),
    ],
)
def test_what_is_left_where_every_fifth_norm_is_a_spike(
    label: str, least: float, most: float
) -> None:
    assert least <= row(label).fifth <= most


@pytest.mark.parametrize("label", ["global_norm(1)", "zscore()", BARE_ZSCORE])
def test_rules_that_never_follow_a_rise(label: str) -> None:
    assert row(label).released == ("never", "never", "never")


def test_steps_until_a_rise_is_let_go() -> None:
    assert row("ema_multiple()").released[0] == 0
    assert 1 <= int(row("ema_multiple()").released[1]) <= 60
    assert 400 <= int(row("ema_multiple()").released[2]) <= 500
    assert row("adagc()").released[1:] == ("slow", "slow")
    for label, steps in (("percentile(10)", 900), ("percentile(90)", 100)):
        assert all(int(each) == pytest.approx(steps, rel=0.15) for each in row(label).released)
    for label, limits in (
        ("log_mad()", (20, 100, 140)),
        ("window_clip()", (5, 5, 5)),
        ("window_sigma()", (5, 5, 5)),
    ):
        assert all(int(a) <= b for a, b in zip(row(label).released, limits, strict=True)), label


def test_both_tables_show_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["rules_table"])
    rules_table.main()
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["rules_table", "--markdown", str(tmp_path / "table.md")])
    rules_table.main()
    written = table_in(tmp_path / "table.md")
    committed = table_in(Path(__file__).parents[2] / "docs" / "rules_table.md")
    # Not the figures: another processor may round one of them otherwise.
    assert [line.split("|")[1] for line in written] == [line.split("|")[1] for line in committed]
    assert len(written) == len(rows()) + 2
    assert all(line.count("|") == len(HEADINGS) + 1 for line in written)
    for label in rows():
        assert label in shown
        assert sum(f"| `{label}` |" in line for line in written) == 1
