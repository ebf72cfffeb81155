"""The results as Markdown: a large table, those of harm and of where we are beaten, the origin."""

from collections.abc import Iterable

from gradstable_gauntlet.league import reporting_tasks
from gradstable_gauntlet.results import Results
from gradstable_gauntlet.tables import (
    BEATEN_NOTES,
    HARM_NOTES,
    NOTES,
    OURS,
    Table,
    beats,
    harms,
    numbers,
    provenance,
)


def to_markdown(results: Results, *, tasks: Iterable[str] | None = None) -> str:
    """Return the tables as Markdown.

    Args:
      results: the results of the gauntlet.
      tasks: the tasks that count. Default: those on which nothing was tuned.
    """
    chosen = reporting_tasks(results) if tasks is None else list(tasks)
    made = "; ".join(f"{name}: {value}" for name, value in provenance(results.made).items())
    worse, harm = beats(results, tasks=chosen), harms(results, tasks=chosen)
    lines = [
        f"Tasks: {', '.join(chosen)}. {OURS} is ours. Made by: {made}.".replace("|", "\\|"),
        "",
        *_table(numbers(results, tasks=chosen)),
        "",
        *(f"- {note}" for note in NOTES),
        "",
        *(["**Harm in fair weather**", "", *_harm(harm), ""] if harm.rows else []),
        "**Where something beats us**",
        "",
        *(_table(worse) if worse.rows else ["Nowhere, by these tests."]),
        "",
        *(f"- {note}" for note in BEATEN_NOTES),
    ]
    return "\n".join(lines) + "\n"


def harm_to_markdown(results: Results) -> str:
    """Return the table of harm in all healthy tasks, those used for tuning included."""
    return "\n".join(_harm(harms(results))) + "\n"


def _harm(table: Table) -> list[str]:
    return [*_table(table), "", *(f"- {note}" for note in HARM_NOTES)]


def _table(table: Table) -> list[str]:
    words = {0, *table.words}
    rule = ["---" if column in words else "--:" for column in range(len(table.header))]
    rows = [
        [f"**{_cell(row[0])}**" if ours else _cell(row[0]), *map(_cell, row[1:])]
        for row, ours in zip(table.rows, table.marked, strict=True)
    ]
    every = [list(map(_cell, table.header)), rule, *rows]
    return [f"| {' | '.join(cells)} |" for cells in every]


def _cell(text: str) -> str:
    """Return text as a single cell, without markup."""
    text = " ".join(text.split())
    for mark in ("\\", "|", "*", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    return text
