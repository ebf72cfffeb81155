"""The frame of a chart: sizes, axes over the steps of a run, ticks in plain text, and marks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gradstable._src.report.binning import Spans, clusters, envelope, lonely, medians, merged
from gradstable._src.report.theme import FONT, color
from gradstable._src.telemetry.run import Run

# Pixels kept free at the top of a chart for marks: the first row, and each further row.
_LANE, _ROW = 20.0, 12.0
_DOTS_PER_INCH = 72  # a point of the figure is a pixel of the page
_TOP, _GAP, _BOTTOM, _RIGHT = 24, 34, 36, 14
# A median covers at least this many steps, and a curve has at most this many medians.
_A_MEDIAN, _MEDIANS = 12, 120
# Below this many steps the curve itself is easy to read.
_MANY = 400
_MARK = 7  # pixels between two marks
_LINES = 300  # upright lines side by side, at most
# Far beyond float32, but small enough for the margins and ticks of a log axis.
LARGEST = 1e100


class Size(NamedTuple):
    """The size of a drawn chart; the page shows the one that fits the window."""

    name: str
    width: int  # pixels
    left: int  # pixels for the labels of the vertical axis
    bins: int  # along the width


WIDE = Size("wide", width=1000, left=52, bins=480)
NARROW = Size("narrow", width=400, left=46, bins=190)
HALF = Size("half", width=470, left=46, bins=220)


class Span(NamedTuple):
    """The steps that the horizontal axis shows."""

    first: float
    last: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Span":
        """Return the range of steps of all these runs, with a margin even for a single step."""
        steps = [float(run.step[end]) for run in runs if len(run.step) for end in (0, -1)]
        first, last = (min(steps), max(steps)) if steps else (0.0, 1.0)
        room = max(0.005 * (last - first), 0.5)
        return cls(first - room, last + room)


def figure(size: Size, heights: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """Return a figure with stacked axes of these heights in pixels."""
    height = _TOP + sum(heights) + _GAP * (len(heights) - 1) + _BOTTOM
    # No pyplot: it would choose a window system and keep every figure.
    made = Figure(
        figsize=(size.width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH
    )
    width = (size.width - size.left - _RIGHT) / size.width
    top, every = float(height - _TOP), []
    for one in heights:
        place = (size.left / size.width, (top - one) / height, width, one / height)
        every.append(made.add_axes(place))
        top -= one + _GAP
    return made, every


def name_axes(axes: Axes, text: str) -> None:
    """Write the label of the vertical axis above it, so that it reads horizontally."""
    axes.text(
        0, 1, text, transform=axes.transAxes, fontsize=FONT, color=color("soft"),
        va="bottom", ha="left", clip_on=False,
    )  # fmt: skip


def over_steps(axes: Axes, span: Span, size: Size, *, lost: Spans = (), last: bool = True) -> None:
    """Make the horizontal axis show steps, with unrecorded stretches hatched."""
    axes.set_xlim(span.first, span.last)
    axes.xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=[1, 2, 2.5, 5, 10], nbins=9 if size.width > 600 else 4)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    if last:
        axes.set_xlabel("step", labelpad=2)
    else:
        axes.tick_params(labelbottom=False)
    pixel = (span.last - span.first) / (size.width - size.left - _RIGHT)
    for first, end in merged(lost, within=2 * pixel):
        axes.axvspan(
            first - 0.5, end + 0.5, facecolor="none", edgecolor=color("line"), hatch="///",
            linewidth=0, zorder=0.5,
        )  # fmt: skip


def _scale_log(axes: Axes, low: float, high: float, lane: float) -> None:
    """Make the vertical axis logarithmic, from a little below ``low`` to a lane above ``high``."""
    low, high = (min(max(end, 1 / LARGEST), LARGEST) for end in (low, high))
    # At least half a decade, or rounding errors of a constant would look like waves.
    if high / low < 3:
        low, high = low / math.sqrt(3), high * math.sqrt(3)
    span = math.log10(high) - math.log10(low)
    top = span / (1 - lane / _height(axes)) - span
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low / 10 ** (0.05 * span), min(high * 10 ** (0.03 * span + top), 10 * LARGEST))
    subs = (1.0,) if span > 2.5 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _scale_linear(axes: Axes, low: float, high: float, lane: float) -> None:
    """Make the vertical axis linear, from a little below ``low`` to a lane above ``high``."""
    low, high = (min(max(end, -LARGEST), LARGEST) for end in (low, high))
    span = max(high - low, 1e-3 * max(abs(high), abs(low)), 1e-12)
    top = span / (1 - lane / _height(axes)) - span
    axes.set_ylim(low - 0.05 * span, high + 0.03 * span + top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y)))


def scale(axes: Axes, values: np.ndarray, *, rows: int = 1) -> bool:
    """Fit the vertical axis to the finite values, with room for rows of marks above them.

    It is logarithmic, and the result true, unless a value is negative or there is none above zero.
    """
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    lane = _LANE + _ROW * (rows - 1)
    log = positive.size > 0 and bool(np.all(values >= 0))
    if log:
        _scale_log(axes, float(positive.min()), float(positive.max()), lane)
    elif values.size:
        _scale_linear(axes, float(values.min()), float(values.max()), lane)
    else:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
    return log


def is_long(values: np.ndarray) -> bool:
    """Return whether a curve has enough steps for its medians to be drawn too."""
    return int(np.count_nonzero(np.isfinite(values))) > _MANY


def curve(
    axes: Axes,
    run: Run,
    values: np.ndarray,
    size: Size,
    *,
    many: bool,
    tone: str = "main",
    dash: Any = "-",
) -> None:
    """Draw a curve; with many steps, draw it thin with thick medians on top."""
    x, y = envelope(run.step, values, bins=size.bins, lost=run.lost)
    style, width, alpha = ("-", 0.8, 0.45) if many else (dash, 1.4, 1.0)
    axes.plot(x, y, color=color(tone), linestyle=style, linewidth=width, alpha=alpha)
    alone = lonely(y)
    axes.plot(x[alone], y[alone], ".", color=color(tone), markersize=5)
    if many:
        calm = np.where(run.rejected, np.nan, values)
        cells = max(1, min(_MEDIANS, size.bins // 2, len(run.step) // _A_MEDIAN))
        middle, median = envelope(
            *medians(run.step, calm, bins=cells), bins=size.bins, lost=run.lost
        )
        axes.plot(middle, median, color=color(tone), linewidth=1.8, linestyle=dash)


def mark_top(
    axes: Axes, steps: np.ndarray, *, marker: str, tone: str, size: Size, row: int = 0
) -> None:
    """Mark steps at the top edge: steps within a mark's width share one, longer ones get a line."""
    low, high = axes.get_xlim()
    mark = _MARK * (high - low) / (size.width - size.left - _RIGHT)
    y = 1 - (9.0 + _ROW * row) / _height(axes)
    across = axes.get_xaxis_transform()
    groups = clusters(steps, within=mark)
    for first, last in (group for group in groups if group[1] - group[0] > mark):
        axes.plot([first, last], [y, y], transform=across, color=color(tone), linewidth=1.6)
    at = [first if last - first > mark else (first + last) / 2 for first, last in groups]
    axes.plot(
        at, np.full(len(at), y), marker, transform=across, color=color(tone), markersize=6.0,
        markeredgewidth=1.5, clip_on=False, zorder=4,
    )  # fmt: skip


def mark_at(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, marker: str, tone: str, size: Size
) -> None:
    """Mark steps on their curve; of steps closer than a mark's width, only the highest."""
    low, high = axes.get_xlim()
    shown = np.isfinite(values)
    steps, values = steps[shown], values[shown]
    width = _MARK * (high - low) / (size.width - size.left - _RIGHT)
    place = ((steps - low) / width).astype(np.int64)
    order = np.lexsort((-values, place))
    _, first = np.unique(place[order], return_index=True)
    kept = order[first]
    axes.plot(
        steps[kept], values[kept], marker, color=color(tone), markerfacecolor="none",
        markersize=6.0, markeredgewidth=1.3, zorder=3,
    )  # fmt: skip


def mark_rollbacks(axes: Axes, run: Run) -> None:
    """Draw a dashed line where a run rolled back, at most one every few pixels."""
    steps = np.array([event.step for event in run.rollbacks], np.float64)
    if not steps.size:
        return
    low, high = axes.get_xlim()
    _, first = np.unique(np.floor((steps - low) / (high - low) * _LINES), return_index=True)
    gap = np.full(len(first), np.nan)
    x = np.stack([steps[first], steps[first], gap], axis=1).ravel()
    axes.plot(
        x, np.tile([0.0, 1.0, np.nan], len(first)), transform=axes.get_xaxis_transform(),
        color=color("note"), linewidth=1.3, linestyle=(0, (4, 3)), zorder=2,
    )  # fmt: skip


def plain(value: float) -> str:
    """Return a number as text without markup: 0.05, 300, 2·10⁻⁵."""
    if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
        return f"{value:,.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.removesuffix(".0").replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}·{power}"


def decades(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return ticks for an axis of common logarithms: powers of ten, or more if they are few."""
    inside: list[float] = []
    for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = LogLocator(subs=subs, numticks=most).tick_values(10**low, 10**high)
        inside = [float(np.log10(tick)) for tick in ticks if low <= np.log10(tick) <= high]
        if len(inside) > 2:
            return inside
    return inside if len(inside) == 2 else np.linspace(low, high, 3).tolist()


def _count(value: float) -> str:
    if value != int(value):
        return ""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:,.0f}"


def _height(axes: Axes) -> float:
    return float(axes.bbox.height)
