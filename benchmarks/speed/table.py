"""The rows as a table, as Markdown, and as JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.pages import write_page
from benchmarks.speed.measure import Row

LEGEND = (
    "ratio: to optax.adamw. floor: the time of the words that no implementation can avoid (7 "
    "for Adam), at the bandwidth of a triad in the same run. words, rare: float32 words moved per "
    "parameter on the path of a healthy step, and by branches next to it. temp: temporary memory "
    "over that of the parameters. state: bytes per parameter. eager: ratio to optax.adamw outside "
    "of jit, on six leaves of 64 x 64, after ten steps. recompiles: compilations when the rate "
    "changes."
)


class _Column(NamedTuple):
    heading: str
    text: Callable[[Row], str]


def _number(field: str, pattern: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = getattr(row, field)
        return "" if value is None else pattern.format(value)

    return text


COLUMNS = (
    _Column("step", lambda row: f"{row.name} ({row.note})" if row.note else row.name),
    _Column("ms", _number("milliseconds", "{:.2f}")),
    _Column("ratio", _number("ratio", "{:.2f}")),
    _Column("× floor", _number("floors", "{:.2f}")),
    _Column("words", _number("words", "{:.1f}")),
    _Column("rare", _number("rare", "{:.1f}")),
    _Column("temp", _number("temp", "{:.1%}")),
    _Column("trace s", _number("trace", "{:.2f}")),
    _Column("compile s", _number("compile", "{:.2f}")),
    _Column("state B", _number("state", "{:.2f}")),
    _Column("eager", _number("eager", "{:.1f}")),
    _Column("recompiles", _number("recompiles", "{}")),
)


def wide_console() -> Console:
    """Return a console on which a table keeps its columns, also where output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=max(150, console.width))


def show(title: str, rows: Sequence[Row], console: Console) -> None:
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column.heading, justify="left" if column is COLUMNS[0] else "right")
    for row in rows:
        table.add_row(*(column.text(row) for column in COLUMNS))
    console.print(table)


def write_markdown(
    path: Path,
    heading: str,
    program: str | None,
    about: str,
    titled: dict[str, Sequence[Row]],
    sentences: Sequence[str] = (),
) -> None:
    """Write a page of the documentation: what its program says, a table for each tree, the rest."""
    lines: list[str] = []
    for title, rows in titled.items():
        lines += [f"**{title}**", "", _line([column.heading for column in COLUMNS])]
        lines += [_line(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_line([column.text(row) for column in COLUMNS]) for row in rows]
        lines += [""]
    lines += [*sentences, "", LEGEND]
    write_page(path, heading, program, f"Measured on: {about}.", lines)


def write_json(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    content = about | {"rows": [row._asdict() for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
