"""The results as one self-contained HTML page with a light and a dark theme."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gradstable._src.report.template import facts, page
from gradstable_gauntlet.heat import heat_map, style
from gradstable_gauntlet.league import by_storm, groups, league, reporting_tasks, together
from gradstable_gauntlet.measures import CLEAN
from gradstable_gauntlet.picture import section
from gradstable_gauntlet.plots import MOST_SHOWN, curves, rates
from gradstable_gauntlet.results import Results
from gradstable_gauntlet.tables import (
    BEATEN_NOTES,
    HARM_NOTES,
    MEASURES,
    NOTES,
    OURS,
    UNKNOWN,
    Table,
    beats,
    harms,
    named,
    numbers,
    provenance,
)

_MOST_TASKS, _MOST_STORMS = 3, 5
_STYLE = """\
body { max-width: 1240px; }
.numbers { font-size: .82rem; }
.numbers td, .numbers th { padding: .34rem .55rem .34rem 0; line-height: 1.3; }
.numbers td { white-space: nowrap; text-align: right; }
.numbers td.words { text-align: left; white-space: normal; min-width: 6.5rem; }
.numbers td.words:last-child { min-width: 17rem; }
.numbers small { color: var(--soft); font-size: .92em; }
.numbers thead th { white-space: normal; vertical-align: bottom; line-height: 1.25; }
.numbers thead th:nth-child(n+2):not(.words) { text-align: right; }
.numbers th:first-child { padding-right: 1rem; }
.card > .notes { margin: .7rem 0 0 1.1rem; max-width: 60rem; }
#curves figure, #rates figure { overflow-x: auto; }
.picture { display: block; width: 100%; height: auto; min-width: 820px; }
.picture text { font-family: inherit; }
.picture path { stroke-linejoin: round; }
@media (max-width: 640px) { .numbers thead th { min-width: 4.2rem; } }
"""


def to_html(
    results: Results,
    *,
    tasks: Iterable[str] | None = None,
    shown: Sequence[str] | None = None,
    shown_tasks: Sequence[str] | None = None,
    shown_storms: Sequence[str] | None = None,
) -> str:
    """Return the page.

    Args:
      results: the results of the gauntlet.
      tasks: those that count in the tables. Default: those on which nothing was tuned.
      shown: contestants whose curves are drawn, the most important first, at most six. Default:
        see ``chosen``.
      shown_tasks: tasks whose loss curves are drawn. Default: the first three that count.
      shown_storms: storms whose loss curves are drawn. Default: the storm that the fewest runs
        survive in each of the first five groups.
    """
    counting = reporting_tasks(results) if tasks is None else list(tasks)
    standings = league(results, tasks=counting)
    order = [one.contestant for one in standings]
    lines = (chosen(results, order) if shown is None else list(shown))[:MOST_SHOWN]
    whole, worse = numbers(results, tasks=counting), beats(results, tasks=counting)
    harm = harms(results, tasks=counting)
    cut = len(whole.header) - MEASURES
    body = [
        heat_map(results, [*order, *(name for name in results.contestants if name not in order)]),
        _table("groups", "Survival by kind of storm", whole.columns(1, cut), NOTES[:2]),
        _table(
            "numbers",
            "Other measures, in storms and in calm weather",
            whole.columns(cut),
            NOTES[2:],
        ),
        *([_table("harm", "Harm in fair weather", harm, HARM_NOTES)] if harm.rows else []),
        _table("beaten", "Where something beats us", worse, BEATEN_NOTES),
        section(
            curves(
                results,
                lines,
                counting[:_MOST_TASKS] if shown_tasks is None else list(shown_tasks),
                _hardest(results, counting) if shown_storms is None else list(shown_storms),
            )
        ),
        section(rates(results, lines, list(results.tasks))),
        _list("storms", "The storms", results.storms, ("group", "about")),
        _list("contestants", "The contestants", results.contestants, ("base", "about")),
        _list("tasks", "The tasks", results.tasks, ("steps", "about")),
    ]
    return page(
        title="The gauntlet",
        under=f'<p class="soft">{escape(_summary(results, counting))}</p>'
        + facts(provenance(results.made)),
        body="\n".join(body),
        foot="Made by gradstable. This page loads nothing from the network.",
        style=style(results) + _STYLE,
    )


def chosen(results: Results, order: Sequence[str]) -> list[str]:
    """Choose whose curves to draw: our two best, their bases, and the best of the others.

    Args:
      results: the results of the gauntlet.
      order: all contestants, the best first.
    """
    about = results.contestants
    ours = [name for name in order if about[name]["ours"]][:2]
    bases = [str(about[name]["base"]) for name in ours]
    kin = [n for n in order if not about[n]["ours"] and about[n]["base"] in bases]
    others = [name for name in order if not about[name]["ours"]]
    wanted = [*ours, *(base for base in bases if base in order), *kin, *others]
    return list(dict.fromkeys(wanted))[:MOST_SHOWN]


def _hardest(results: Results, tasks: Sequence[str]) -> list[str]:
    each = [by_storm(results, name, tasks) for name in results.contestants]
    alive = {storm: together(one[storm] for one in each) for storm in results.storms}
    some = list(groups(results).values())[:_MOST_STORMS]
    return [min(storms, key=lambda storm: alive[storm].survived) for storms in some]


def _summary(results: Results, tasks: Sequence[str]) -> str:
    runs = sum(fate.final.size for cell in results.cells for fate in cell.fates.values())
    storms = len(set(results.storms) - {CLEAN})
    tuning = [name for name, about in results.tasks.items() if about.get("tuning")]
    text = (
        f"{len(results.contestants)} optimizers, {len(results.tasks)} tasks, {storms} storms, "
        f"{runs:,} runs. {OURS} is ours. Numbers cover {len(tasks)} tasks: {', '.join(tasks)}."
    )
    return text + (f" Used for tuning, and left out: {', '.join(tuning)}." if tuning else "")


def _table(key: str, title: str, table: Table, notes: Sequence[str]) -> str:
    words = set(table.words)
    head = "".join(
        f'<th scope="col"{_kind(column, words)}>{escape(name)}</th>'
        for column, name in enumerate(table.header)
    )
    rows = "".join(
        f'<tr><th scope="row"{" class=ours" if ours else ""}>{escape(row[0])}</th>'
        + "".join(
            f"<td{_kind(column, words)}>{_folded(text)}</td>"
            for column, text in enumerate(row[1:], start=1)
        )
        + "</tr>"
        for row, ours in zip(table.rows, table.marked, strict=True)
    )
    inside = (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        if table.rows
        else '<p class="nothing">Nowhere, by these tests.</p>'
    )
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f'<section class="card" id="{key}"><h2>{escape(title)}</h2>{inside}'
        f'<ul class="notes soft">{items}</ul></section>'
    )


def _folded(text: str) -> str:
    """Return the text with a range in brackets on its own line."""
    value, bracket, rest = text.partition(" (")
    if not bracket or " to " not in rest:
        return escape(text)
    return f"{escape(value)}<br><small>({escape(rest)}</small>"


def _kind(column: int, words: set[int]) -> str:
    return ' class="words"' if column in words else ""


def _list(
    key: str, title: str, named_things: Mapping[str, Mapping[str, Any]], fields: Sequence[str]
) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(named(name, ours=bool(about.get("ours"))))}</th>'
        + "".join(f"<td>{escape(str(about.get(field, UNKNOWN)))}</td>" for field in fields)
        + "</tr>"
        for name, about in named_things.items()
    )
    head = "".join(f'<th scope="col">{escape(field)}</th>' for field in ("name", *fields))
    return (
        f'<section class="card" id="{key}"><h2>{escape(title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
