"""A chart on the page: its title, how to read it, its legend and its pictures."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from gradstable._src.report.frame import NARROW, WIDE, Size
from gradstable._src.report.theme import settings, to_svg


class Key(NamedTuple):
    """One line of a legend: a shape (see ``_SHAPES``), a color of the palette, and words."""

    shape: str
    tone: str
    text: str


class Panel(NamedTuple):
    """One chart, not yet drawn.

    Attributes:
      key: its name, on the page and in links.
      title: two or three words.
      reading: how to read it, in a sentence or two.
      label: a description of the picture, with numbers, for readers who cannot see it.
      legend: its entries, in reading order.
      draw: draws the picture in a size; ``None`` if there is nothing to show.
      sizes: one for wide and one for narrow windows, or one for both.
    """

    key: str
    title: str
    reading: str
    label: str
    legend: Sequence[Key]
    draw: Callable[[Size], Figure] | None
    sizes: Sequence[Size] = (WIDE, NARROW)


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
    """Return a panel, drawn, as a section of the page."""
    head = (
        f'<section class="card" id="{panel.key}"><h2>{escape(panel.title)}</h2>'
        f'<p class="soft">{escape(panel.reading)}</p>'
    )
    if panel.draw is None:
        return f'{head}<p class="nothing">{escape(panel.label)}</p></section>'
    pictures = []
    for size in panel.sizes:
        classes = "chart" if len(panel.sizes) == 1 else f"chart {size.name}"
        with settings():
            drawn = panel.draw(size)
        key = f"{panel.key}-{size.name}"
        pictures.append(to_svg(drawn, key=key, label=panel.label, classes=classes))
    return f"{head}{legend(panel.legend)}<figure>{''.join(pictures)}</figure></section>"
