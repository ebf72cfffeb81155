"""A chart on the page: its title, how to read it, its legend and its drawing."""

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from gradstable._src.report.chart import Key, legend
from gradstable_gauntlet.svg import settings, to_svg


class Picture(NamedTuple):
    """One chart, not yet drawn.

    Attributes:
      key: its name, on the page and in links.
      title: two or three words.
      reading: how to read it, in a sentence or two.
      label: a description of the drawing for readers who cannot see it.
      legend: its entries, in reading order.
      draw: draws it; ``None`` if there is nothing to show.
    """

    key: str
    title: str
    reading: str
    label: str
    legend: Sequence[Key]
    draw: Callable[[], Figure] | None


def section(picture: Picture) -> str:
    """Return a chart, drawn, as a section of the page."""
    head = (
        f'<section class="card" id="{picture.key}"><h2>{escape(picture.title)}</h2>'
        f'<p class="soft">{escape(picture.reading)}</p>'
    )
    if picture.draw is None:
        return f'{head}<p class="nothing">{escape(picture.label)}</p></section>'
    with settings():
        drawn = picture.draw()
    svg = to_svg(drawn, key=picture.key, label=picture.label, classes="picture")
    return f"{head}{legend(picture.legend)}<figure>{svg}</figure></section>"
