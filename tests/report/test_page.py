"""The page as text: complete for every run there can be, small, and bound to nothing outside."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstable._src.report.comparison import distinct_names
from gradstable._src.report.table import REJECTED
from gradstable._src.report.theme import PALETTE
from gradstable.report import render
from gradstable.telemetry import read_run
from tests import html_page
from tests.report.drawn import columns_of, data_of, unpacked
from tests.report.running import Events, rejected, steps, stormy, write_run

NAN = {"loss": "nan", "grad_norm": "nan", "leaf_norms": ["nan"] * 4}
ZEROS = {"loss": 0.0, "grad_norm": 0.0, "rms": 0.0}
NO_GUARD = {"scale": None, "threshold": "inf", "reason": None}
# Few are left open in HTML on purpose.
VOID = {"meta", "br", "path", "use", "image", "rect", "circle"}


class Page(html_page.Page):
    """Collects the labels of drawings and the words besides."""

    void = VOID
    loading = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")

    def __init__(self, text: str) -> None:
        self.labels: list[str] = []
        self.words = ""
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        found = dict(attrs)
        if tag == "figure" and found.get("role") == "img":
            self.labels.append(found.get("aria-label") or "")

    def handle_data(self, data: str) -> None:
        if not self.opened or self.opened[-1] not in ("style", "script"):
            self.words += data


def check(text: str) -> Page:
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not page.opened
    assert not set(page.tags) & {"link", "iframe", "object", "embed", "base", "form"}
    assert all(source.startswith("#") for source in page.sources)
    # The license of uPlot names its home; nothing is loaded from there.
    assert not re.search(r"https?://(?!github\.com/leeoniya/uPlot )", text)
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text
    # Names are unique, and what is referred to is there.
    assert len(set(page.names)) == len(page.names)
    used = set(re.findall(r'href="#([^"]+)', text))
    assert used <= set(page.names)
    # Every room for a chart has one, with its tables, and the other way around.
    data = data_of(text)
    assert re.findall(r'data-chart="([^"]+)"', text) == list(data["charts"])
    for chart in data["charts"].values():
        check_chart(chart, data["tables"])
    # No number is left that only Python reads as JSON.
    json.dumps(data, allow_nan=False)
    assert all(page.labels)
    return page


def check_chart(chart: dict[str, Any], tables: dict[str, Any]) -> None:
    for one in chart.get("charts", {}).values():
        check_chart(one, tables)
    for line in chart.get("lines", ()):
        assert line["column"] in tables[line["table"]]["columns"]
        assert line["tone"] in PALETTE
    for mark in chart.get("marks", ()):
        assert "deed" in tables[mark["table"]]
        assert not mark["column"] or mark["column"] in tables[mark["table"]]["columns"]
    if chart["kind"] == "heat":
        cells = unpacked(chart["cells"], "u1")
        assert len(cells) == len(chart["names"]) * chart["columns"]


CASES: dict[str, tuple[Events, int]] = {
    "no step": ([], 4),
    "one step": (steps(1, leaves=1), 1),
    "one leaf": (steps(450, leaves=1), 1),
    "nothing but a number": ([{"event": "step", "step": 1}], 4),
    "no leaves": (
        [
            {k: v for k, v in one.items() if k != "leaf_norms"} | {"worst_leaf": -1, "rms_leaf": -1}
            for one in steps(9)
        ],
        0,
    ),
    "400 leaves": (steps(60, leaves=400), 400),
    "no loss": ([{**one, "loss": None} for one in steps(60)], 4),
    "negative loss": ([{**one, "loss": one["loss"] - 1} for one in steps(60)], 4),
    "nothing but zeros": ([{**one, **ZEROS} for one in steps(9)], 4),
    "no guard": ([{**one, **NO_GUARD} for one in steps(60)], 4),
    "NaN at the end": (steps(500, faults={step: NAN for step in range(300, 501)}), 4),
    "nothing but NaN": (steps(30, faults={step: NAN for step in range(1, 31)}), 4),
    "all rejected": (steps(30, faults={step: rejected(**NAN) for step in range(1, 31)}), 4),
    "largest and smallest numbers": (
        steps(50, faults={7: {"loss": 1e308, "grad_norm": 1e308}, 9: {"grad_norm": 5e-324}}),
        4,
    ),
    "everything at once": (stormy(600), 4),
    "nothing moved": ([{**one, "update_ratio": 0.0} for one in steps(60)], 4),
    "no factor on the rate": ([{**one, "lr_factor": 0.0} for one in steps(60)], 4),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_run_has_a_page(case: str, tmp_path: Path) -> None:
    events, leaves = CASES[case]
    run = write_run(tmp_path / "run.jsonl", events, leaves=leaves)
    check(render([run, run]))
    page = check(render([run]))
    for title in ("Loss", "Gradient norm", "Early warnings", "Why", "What happened", "Settings"):
        assert title in page.words


def test_every_chart_says_what_it_shows(tmp_path: Path) -> None:
    page = check(render([write_run(tmp_path / "run.jsonl", stormy(600))]))
    assert len(page.labels) == 6
    assert "Loss of 570 steps, from" in page.labels[0]
    assert "6 steps rejected, 1 clipped" in page.labels[0]


def test_100_000_steps_stay_small(tmp_path: Path) -> None:
    events = stormy(100_000)
    events[4321] |= {"loss": 55555.0}
    events += [{"event": "scalars", "step": step, "lr": 1 / step, "acc": 0.5} for step in
               range(1, 100_001, 10)]  # fmt: skip
    text = render([write_run(tmp_path / "run.jsonl", events)])
    assert len(text.encode()) < 700_000
    assert "at most 55,555" in text
    columns = columns_of(text)
    assert columns["loss"][columns["step"] == 4322] == 55555.0


def test_many_rejections_stay_small(tmp_path: Path) -> None:
    faults = {step: rejected(**NAN) for step in range(1, 20_001, 3)}
    text = render([write_run(tmp_path / "run.jsonl", steps(20_000, faults=faults))])
    assert len(text.encode()) < 500_000
    assert "Shown are 200 of 6,667 rows" in text
    # What is left of them is spread over the whole run.
    columns = columns_of(text)
    shown = columns["step"][columns["deed"] & REJECTED > 0]
    assert len(shown) >= 1000
    assert max(np.diff(shown)) < 200


def test_a_truncated_file_has_a_page(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    write_run(file, steps(40))
    file.write_text(file.read_text()[:-30])
    page = check(render([read_run(file)]))
    assert "39" in page.words
    assert "The log was not closed" in page.words


def test_what_a_run_says_is_not_taken_for_html(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>&\"'$x$_"
    leaves = [f"['{evil}']", "['b']", "['c']", "['d']"]
    events = [*stormy(60), {"event": "note", "step": 3, "text": evil},
              {"event": "scalars", "step": 3, evil: 1.0}]  # fmt: skip
    fields: dict[str, Any] = {"name": evil, "config": {evil: evil}, "paths": leaves}
    run = write_run(tmp_path / "run.jsonl", events, **fields)
    for text in (render([run]), render([run, run]), render([run], title=evil)):
        page = check(text)
        assert page.tags.count("script") == 2
        assert evil in page.words


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", stormy(90))
    assert render([run]) == render([run])


def test_a_comparison_shows_both(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a.jsonl", stormy(600), name="guard")
    b = write_run(
        tmp_path / "b.jsonl",
        [{**one, "loss": None} for one in steps(500, seed=1)],
        name="bare",
        config={"b2": 0.95, "new": 1},
    )
    text = render([a, b])
    page = check(text)
    assert "guard · bare" in page.words
    assert "Not recorded in bare." in page.words
    assert "b2 ≠" in page.words
    assert "new ≠" in page.words
    assert len(page.labels) == 5
    for words in ("Factor on the learning rate", "rollbacks", "lowest factor on the rate"):
        assert words in page.words
    assert data_of(text)["rollbacks"] == [[301, "main"]]


@pytest.mark.parametrize("number", [2, 3, 8])
def test_runs_of_any_number_and_of_any_kind_are_compared(number: int, tmp_path: Path) -> None:
    kinds: list[Events] = [steps(50), [], stormy(600), steps(1)]
    runs = [
        write_run(tmp_path / f"{place}.jsonl", kinds[place % len(kinds)]) for place in range(number)
    ]
    assert len(set(distinct_names(runs))) == number
    check(render(runs))


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        render([])


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan")])
def test_the_time_until_a_reload_must_be_positive(seconds: float, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", steps(3))
    with pytest.raises(ValueError, match="reload must be a positive number of seconds"):
        render([run], reload=seconds)


def test_there_is_one_pair_of_losses(tmp_path: Path) -> None:
    """The verdict, the tile, and the table of a comparison speak of the same numbers."""
    run = write_run(tmp_path / "run.jsonl", steps(400))
    words = check(render([run])).words
    first, last = re.findall(r"the loss fell from (\S+) to (\S+)\.", words)[0]
    assert f"{first} → {last}" in words
    assert f"{first} → {last}" in check(render([run, run])).words
    assert "last loss" not in words


def test_a_loss_that_ended_as_nan_is_not_hidden(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", steps(60, faults={60: {"loss": "nan"}}))
    assert "→ NaN" in check(render([run])).words
