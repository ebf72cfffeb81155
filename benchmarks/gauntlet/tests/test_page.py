"""The page and the Markdown: all that was run is in them, and nothing from outside."""

import re

import numpy as np
import pytest
from gradstable_gauntlet.beaten import beaten, ends_lower, survives_more
from gradstable_gauntlet.league import Share, by_storm, groups, league, reporting_tasks
from gradstable_gauntlet.markdown import to_markdown
from gradstable_gauntlet.page import chosen, to_html
from gradstable_gauntlet.results import Fate, Results
from gradstable_gauntlet.tables import beats, duration, fixed, harms, numbers, spread

from benchmarks.gauntlet.tests.made_up import CONTESTANTS, STORMS, TASKS, results, with_fair_weather
from tests import html_page

VOID = {"meta", "br", "input"}
BAD = np.array([np.nan, np.inf, -np.inf])


class Page(html_page.Page):
    """Collects the words of cells besides."""

    void = VOID

    def __init__(self, text: str) -> None:
        self.cells: list[str] = []
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID
        super().handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.opened):
            self.cells[-1] += data


def check(text: str) -> Page:
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not page.opened
    assert len(set(page.names)) == len(page.names)
    assert not set(page.tags) & {"link", "iframe", "object", "embed", "img"}
    assert all(source.startswith("#") for source in page.sources)
    assert not re.search(r"https?:|@import|url\((?!#)|xmlns", text)
    assert not re.findall(r"(?:fill|stroke): #", text)
    return page


def blown_up() -> Results:
    """Return results in which nothing ever was finite."""
    made = results()
    no_fate = Fate(BAD, np.zeros(3, bool), BAD, BAD, BAD, BAD, BAD)
    cells = [
        cell._replace(
            sweep=np.full((len(made.rates), 2), np.nan),
            start=np.full(2, np.inf),
            fates={storm: no_fate for storm in cell.fates},
        )
        for cell in made.cells
    ]
    return made._replace(cells=cells)


def small() -> Results:
    """Return results of one rate, one seed, one contestant, one storm, one point of a curve."""
    made = results()
    one = np.ones(1)
    fate = Fate(one, np.ones(1, bool), one, one, one, one, one)
    cell = made.cells[2]._replace(
        sweep=np.ones((1, 1)), start=2 * one, fates={"none": fate, "nan 1 %": fate}
    )
    storms = {name: made.storms[name] for name in cell.fates}
    contestants = {cell.contestant: made.contestants[cell.contestant]}
    return made._replace(rates=[0.1], cells=[cell], storms=storms, contestants=contestants)


def test_everything_is_on_the_page() -> None:
    text = to_html(results())
    page = check(text)
    words = {cell.removeprefix("● ") for cell in page.cells}
    assert words >= {*CONTESTANTS, *STORMS, *TASKS}
    assert "copies &lt;what&gt; it read &amp; waits" in text
    assert {"survival", "numbers", "beaten", "curves", "rates"} <= set(page.names)
    assert page.tags.count("input") == 1 + len(TASKS)
    assert "took</dt><dd>1 h 24 min" in text
    assert to_html(results()) == text


@pytest.mark.parametrize("make", [blown_up, small])
def test_odd_results_have_a_page_and_tables(make: object) -> None:
    assert callable(make)
    check(to_html(make()))
    columns(to_markdown(make()))


def test_results_without_any_run_have_a_page() -> None:
    nothing = results()._replace(cells=[])
    check(to_html(nothing))
    columns(to_markdown(nothing))


def columns(text: str) -> list[list[str]]:
    """Return the rows of all tables, each with as many cells as the one above it."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            assert cells[0] == cells[-1] == ""
            tables[-1].append([cell.strip() for cell in cells[1:-1]])
        elif tables[-1]:
            tables.append([])
    for table in tables:
        assert len({len(row) for row in table}) <= 1
    return [row for table in tables for row in table]


def test_markdown_has_a_row_for_each_and_marks_ours() -> None:
    made = results()
    odd = dict(made.contestants) | {"a|b": {"about": "", "base": "adamw", "ours": False}}
    cells = [*made.cells, made.cells[5]._replace(contestant="a|b")]
    text = to_markdown(made._replace(contestants=odd, cells=cells))
    first = [row[0] for row in columns(text)]
    assert {"**● guard(adamw)**", "**● stable_adamw**", "adamw", "sgd", r"a\|b"} <= set(first)
    assert text.startswith("Tasks: digits, copy. ● is ours. Made by: command: python -m")
    assert "**Where something beats us**" in text


def test_the_league_counts_only_the_tasks_and_storms_it_is_told() -> None:
    made = results()
    assert reporting_tasks(made) == ["digits", "copy"]
    whole = {one.contestant: one for one in league(made)}
    part = {
        one.contestant: one for one in league(made, tasks=["digits"], storms=["none", "x1e3 1 %"])
    }
    assert list(part["adamw"].survival) == ["corrupted, finite", ""]
    assert part["adamw"].survival[""].runs == 5
    assert whole["adamw"].survival[""].runs == 3 * 24 * 5
    assert whole["sgd"].survival[""].runs == 2 * 24 * 5
    assert "sgd" not in {one.contestant for one in league(made, tasks=["copy"])}
    assert [one.survival[""].percent for one in league(made)] == sorted(
        (one.survival[""].percent for one in whole.values()), reverse=True
    )
    assert whole["guard(adamw)"].ratio.low <= whole["guard(adamw)"].ratio.value
    assert by_storm(made, "adamw", ["digits"])["x1e3 1 %"] == part["adamw"].survival[""]
    assert sum(map(len, groups(made).values())) == len(STORMS) - 1


def test_fair_weather_is_counted_apart() -> None:
    before, after = league(results(), tasks=["digits"]), with_fair_weather()
    whole = {one.contestant: one for one in league(after, tasks=["digits", "heads"])}
    assert whole["adamw"].survival["fair weather"].runs == 5
    for one in before:
        assert whole[one.contestant].survival[""] == one.survival[""]
        assert whole[one.contestant].ratio == one.ratio
    check(to_html(after))
    assert "fair weather" in numbers(after).header


def test_harm_has_a_row_for_each_contestant_in_each_healthy_task() -> None:
    made = with_fair_weather()
    table = harms(made)
    assert {row[0].removeprefix("● ") for row in table.rows} == set(CONTESTANTS)
    assert {row[1] for row in table.rows} == {"heads"}
    assert "**Harm in fair weather**" in to_markdown(made)
    assert {row[0] for row in columns(to_markdown(made)) if row[1] == "heads"} >= {"adamw", "sgd"}
    assert "harm" in check(to_html(made)).names
    assert "Harm in fair weather" not in to_markdown(results())
    assert not harms(made, tasks=["digits"]).rows


def test_a_share_has_an_error_even_where_all_survived() -> None:
    assert Share(3, 3).percent == 100
    assert Share(3, 3).error == pytest.approx(100 * (0.8 * 0.2 / 5) ** 0.5)
    assert np.isnan(Share(0, 0).percent)


def test_what_beats_by_more_than_chance() -> None:
    alive, some, none = np.ones(5, bool), np.array([1, 1, 1, 0, 0], bool), np.zeros(5, bool)
    assert survives_more(alive, none)
    assert not survives_more(alive, some)  # 0.4 < 2 sqrt(0.8 * 0.2 * 2 / 5) = 0.51
    assert survives_more(np.ones(20, bool), np.tile(some, 4))  # 0.4 > 0.25
    assert not survives_more(np.ones(1, bool), np.zeros(1, bool))
    assert not survives_more(alive, alive)
    near, far = np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 5.0])  # deviations of 1
    assert not ends_lower(near, far)
    assert ends_lower(near, far + 0.1)
    assert not ends_lower(far + 0.1, near)
    assert ends_lower(near, BAD)
    assert not ends_lower(BAD, near)
    assert not ends_lower(BAD, BAD)


def test_what_beats_us_is_said() -> None:
    made = results()
    hurt = next(cell for cell in made.cells if cell.contestant == "guard(adamw)")
    broken = hurt.fates["nan 1 %"]._replace(final=np.full(5, np.nan), finite=np.zeros(5, bool))
    cells = [
        cell._replace(fates={**cell.fates, "nan 1 %": broken}) if cell is hurt else cell
        for cell in made.cells
    ]
    made = made._replace(cells=cells)
    found = [
        one
        for one in beaten(made, ours=["guard(adamw)"])
        if (one.task, one.storm, one.measure) == (hurt.task, "nan 1 %", "survival")
    ]
    assert len(found) == 1
    assert found[0].our_value == 0
    assert found[0].by == "adamw, clip 1"
    row = next(
        row for row in beats(made).rows if row[:2] == ["● guard(adamw)", groups_of("nan 1 %")]
    )
    assert "deep linear, nan 1 %" in row[-1]
    assert "0 % against" in row[-1]
    assert not beaten(made, ours=["guard(adamw)"], by=["sgd"], same_base=True)


def groups_of(storm: str) -> str:
    return STORMS[storm]["group"]


def test_curves_are_of_ours_their_bases_and_the_best_others() -> None:
    made = results()
    order = [one.contestant for one in league(made)]
    assert chosen(made, order)[:3] == ["guard(adamw)", "stable_adamw", "adamw"]
    assert set(chosen(made, order)) == set(CONTESTANTS)


def test_numbers_in_words() -> None:
    assert [duration(s) for s in (40, 720, 5025)] == ["40 s", "12 min", "1 h 24 min"]
    assert fixed(-0.04, 1, "%", sign=True) == "0.0 %"
    assert fixed(1.25, 1, "%", sign=True) == "+1.2 %"
    assert fixed(np.inf, 1) == "∞"
    assert fixed(-2.0, 1) == "−2.0"
    made = league(results())[0]
    assert spread(made.ratio, 2).startswith("1.0")
    table = numbers(results())
    assert all(len(row) == len(table.header) for row in table.rows)
