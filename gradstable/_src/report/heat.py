"""A map of numbers over the steps: one row per leaf or tap, each color the largest in its cell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from gradstable._src.report.binning import maxima
from gradstable._src.report.frame import (
    LARGEST,
    Size,
    Span,
    decades,
    figure,
    mark_rollbacks,
    over_steps,
    plain,
)
from gradstable._src.report.theme import FONT, color
from gradstable._src.telemetry.run import Run

_ROW, _LEAST_HEIGHT = 17, 60
_COLUMNS = {"wide": 260, "narrow": 110}
# Evenly spaced in lightness for everyone, and never as light or dark as the page.
_COLORS = "viridis"
# Numbers that only a few samples reach may saturate, so that the map shows the rest.
_LOW, _HIGH = 1.0, 99.5
# Sizes in pixels: the width of a letter of a name, and the scale with its margin.
_LETTER, _SCALE = 6.3, 14


class Heat(NamedTuple):
    """What a map shows.

    Attributes:
      steps: int64 ``[m]``, ascending.
      values: float64 ``[m, rows]``; NaN where nothing is known.
      broken: bool ``[m, rows]``, where a red line is drawn.
      names: the rows.
      what: the label of the scale.
    """

    steps: np.ndarray
    values: np.ndarray
    broken: np.ndarray
    names: Sequence[str]
    what: str


def draw_heat(run: Run, heat: Heat, size: Size) -> Figure:
    """Draw a map, with the scale of its colors below."""
    rows = len(heat.names)
    left = int(max(map(len, heat.names)) * _LETTER) + 14
    height = max(_LEAST_HEIGHT, _ROW * rows)
    drawn, (axes, bar) = figure(size._replace(left=left), (height, _SCALE))
    columns = _COLUMNS.get(size.name, 200)
    cells, (first, last) = maxima(heat.steps, heat.values, bins=columns)
    positive = cells[np.isfinite(cells) & (cells > 0)]
    low, high = np.percentile(positive, (_LOW, _HIGH)) if positive.size else (0.1, 1.0)
    low, high = (float(np.clip(end, 1 / LARGEST, LARGEST)) for end in (low, high))
    norm = LogNorm(low, max(high, low * 1.5))
    with np.errstate(invalid="ignore"):
        colors = colormaps[_COLORS](norm(np.clip(np.nan_to_num(cells, posinf=np.nan), low, high)))
    # Unknown numbers stay empty, and so do those that are not finite: a line is drawn there.
    colors[~np.isfinite(cells)] = 0.0
    axes.imshow(colors, aspect="auto", interpolation="none", extent=(first, last, rows - 0.5, -0.5))
    _draw_broken(axes, heat, columns)
    over_steps(axes, Span.of([run]), size, lost=run.lost)
    mark_rollbacks(axes, run)
    axes.grid(visible=False)
    # A name can contain dollar signs but is not a formula.
    axes.set_yticks(range(rows), list(heat.names), fontsize=FONT - 1, parse_math=False)
    axes.set_ylim(rows - 0.5, -0.5)
    _draw_scale(bar, norm, size, heat.what)
    return drawn


def _draw_broken(axes: Axes, heat: Heat, columns: int) -> None:
    """Draw a line through a row where it is not finite."""
    cells, (first, last) = maxima(heat.steps, heat.broken.astype(np.float16), bins=columns)
    width = (last - first) / cells.shape[1]
    x, y = [], []
    for row, cell in enumerate(cells):
        edges = np.diff(np.concatenate([[0], cell == 1.0, [0]]).astype(np.int64))
        begins, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
        for begin, end in zip(begins, ends, strict=True):
            x += [first + begin * width, first + end * width, np.nan]
            y += [row, row, np.nan]
    # A wider line in the color of the page underneath makes the thick line stand out on the map.
    for tone, thick in (("card", _ROW - 5), ("bad", 5)):
        axes.plot(x, y, color=color(tone), linewidth=thick, solid_capstyle="butt")


def _draw_scale(bar: Axes, norm: LogNorm, size: Size, what: str) -> None:
    place = bar.get_position()
    share = min(1.0, 260 / (size.width * place.width))
    bar.set_position((place.x0, place.y0, place.width * share, place.height))
    shades = colormaps[_COLORS](np.linspace(0, 1, 128))[np.newaxis]
    ends = (np.log10(norm.vmin or 0.1), np.log10(norm.vmax or 1.0))
    bar.imshow(shades, aspect="auto", interpolation="none", extent=(*ends, 0, 1))
    bar.set_yticks([])
    bar.grid(visible=False)
    bar.xaxis.set_minor_locator(NullLocator())
    bar.set_xticks(decades(*ends, most=5))
    bar.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(float(f"{10**x:.2g}"))))
    for side in bar.spines.values():
        side.set_visible(False)
    bar.set_xlabel(what, labelpad=2)
