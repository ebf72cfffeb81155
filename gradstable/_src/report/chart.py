"""A chart as the page describes it: what is drawn, in words and for the script that draws it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from gradstable._src.report.table import Table


class Key(NamedTuple):
    """One line of a legend: a shape (see ``_SHAPES``), a color of the palette, and words."""

    shape: str
    tone: str
    text: str


class Line(NamedTuple):
    """One curve.

    Attributes:
      table: the name of the table that holds it.
      column: its column there.
      label: what it is called where its value is shown.
      tone: a color of the palette.
      dash: lengths of dashes and gaps in pixels; empty for a solid line.
      width: in pixels.
      faint: whether it is drawn thin and pale, under its medians.
      stepped: whether a value holds until the next one.
      limit: whether it is a limit on the other curves: the axis covers it only near these.
      quiet: whether its value is left out where values are shown.
    """

    table: str
    column: str
    label: str
    tone: str = "main"
    dash: Sequence[float] = ()
    width: float = 1.4
    faint: bool = False
    stepped: bool = False
    limit: bool = False
    quiet: bool = False


class Mark(NamedTuple):
    """A mark at all steps of a table to which something happened.

    Attributes:
      table: the name of the table.
      bits: bits of ``Table.deed``, any of them.
      shape: ``cross``, ``square``, ``ring``, or ``triangle``.
      tone: a color of the palette.
      column: the curve on which it lies; empty for the top edge.
      row: the row at the top edge.
    """

    table: str
    bits: int
    shape: str
    tone: str
    column: str = ""
    row: int = 0


class Chart(NamedTuple):
    """One drawing of curves over steps.

    Attributes:
      name: what the vertical axis shows.
      lines: its curves, the lowest first.
      marks: the marks on them.
      height: in pixels.
      log: whether the axis is logarithmic at first, where that is possible.
      ends: both ends of the axis; ``None`` to fit what is in view.
      level: where a dotted line is drawn.
    """

    name: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    height: int = 230
    log: bool = True
    ends: tuple[float, float] | None = None
    level: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the script of the page reads."""
        return {
            **self._asdict(),
            "kind": "lines",
            "lines": [one._asdict() for one in self.lines],
            "marks": [one._asdict() for one in self.marks],
        }


class Drawn(NamedTuple):
    """A drawing of another kind, as the script of the page reads it."""

    kind: str
    fields: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what the script of the page reads."""
        return {"kind": self.kind, **self.fields}


class Panel(NamedTuple):
    """Charts with one title.

    Attributes:
      key: its name, on the page and in links.
      title: two or three words.
      reading: how to read it, in a sentence or two.
      label: a description of the picture, with numbers, for readers who cannot see it; or what
        is missing, if there are no charts.
      legend: its entries, in reading order.
      charts: one below the other; empty if there is nothing to show.
      more: HTML below the charts.
      grid: whether the charts are small ones, side by side where there is room.
    """

    key: str
    title: str
    reading: str
    label: str
    legend: Sequence[Key] = ()
    charts: Sequence[Chart | Drawn] = ()
    more: str = ""
    grid: bool = False


class Data(NamedTuple):
    """What the script of a page reads besides charts.

    Attributes:
      span: the first and the last step.
      tables: the numbers, by name.
      gaps: the first and last step of stretches that were not recorded.
      rollbacks: a step and a color of the palette each, ascending.
      reasons: the sentences of reason codes.
    """

    span: tuple[float, float]
    tables: Mapping[str, Table]
    gaps: Sequence[tuple[int, int]] = ()
    rollbacks: Sequence[tuple[int, str]] = ()
    reasons: Mapping[int, str] = {}


# Drawn in a box of 24 by 14, with the color of the text around it.
_SHAPES = {
    "line": '<path d="M1 7H23" stroke-width="1.8"/>',
    "thin": '<path d="M1 9l4-5 4 7 4-8 4 6 4-4 2 3" stroke-width="1" opacity=".6"/>',
    "dash": '<path d="M1 7H23" stroke-width="1.6" stroke-dasharray="5 3"/>',
    "dot": '<path d="M1 7H23" stroke-width="1.8" stroke-dasharray="2 2.5"/>',
    "dashdot": '<path d="M1 7H23" stroke-width="1.8" stroke-dasharray="7 2 2 2"/>',
    "upright": '<path d="M12 0V14" stroke-width="1.5" stroke-dasharray="3 2"/>',
    "cross": '<path d="M8.5 3.5l7 7m0-7l-7 7" stroke-width="1.7"/>',
    "ring": '<circle cx="12" cy="7" r="3.6" stroke-width="1.5"/>',
    "triangle": '<path d="M12 3l4.5 8h-9z" stroke-width="1.4"/>',
    "square": '<path d="M8.5 3.5h7v7h-7z" fill="currentColor"/>',
    "fill": '<path d="M2 2h20v10H2z" fill="currentColor" stroke="none"/>',
    "point": '<circle cx="12" cy="7" r="2.2" fill="currentColor" stroke="none"/>',
    "hatch": '<path d="M4 12L12 2M10 12L18 2M16 12L22 4" stroke-width="1"/>',
}


def shape(name: str, tone: str) -> str:
    """Return the shape of a legend or a table, as HTML."""
    return (
        f'<svg class="key" viewBox="0 0 24 14" aria-hidden="true" '
        f'style="color: var(--{tone})">{_SHAPES[name]}</svg>'
    )


def legend(keys: Iterable[Key]) -> str:
    """Return a legend as HTML; shapes carry the same information as colors."""
    items = "".join(f"<li>{shape(key.shape, key.tone)}{escape(key.text)}</li>" for key in keys)
    return f'<ul class="legend">{items}</ul>' if items else ""


def section(panel: Panel) -> str:
    """Return a panel as a section of the page, with room for its charts."""
    reading = f'<p class="soft">{escape(panel.reading)}</p>' if panel.reading else ""
    head = f'<section class="card" id="{panel.key}"><h2>{escape(panel.title)}</h2>{reading}'
    if not panel.charts:
        return f'{head}<p class="nothing">{escape(panel.label)}</p>{panel.more}</section>'
    classes = ' class="grid"' if panel.grid else ""
    rooms = "".join(
        f'<div class="chart" data-chart="{panel.key}-{place}"></div>'
        for place in range(len(panel.charts))
    )
    return (
        f"{head}{legend(panel.legend)}"
        f'<figure role="img" aria-label="{escape(panel.label)}"{classes}>{rooms}</figure>'
        f"{panel.more}</section>"
    )


def to_json(panels: Iterable[Panel], data: Data) -> dict[str, Any]:
    """Return all that the script of the page reads."""
    return {
        "span": data.span,
        "gaps": data.gaps,
        "rollbacks": data.rollbacks,
        "reasons": data.reasons,
        "tables": {name: table.to_json() for name, table in data.tables.items()},
        "charts": dict(_charts(panels)),
    }


def _charts(panels: Iterable[Panel]) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels:
        for place, chart in enumerate(panel.charts):
            yield f"{panel.key}-{place}", chart.to_json()
