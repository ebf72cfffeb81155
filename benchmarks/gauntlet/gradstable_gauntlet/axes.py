"""Axes that fit their values, with room for marks at the top, and ticks in plain text."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gradstable._src.report.numbers import plain

# Pixels kept free at the top of a chart for marks: the first row, and each further row.
_LANE, _ROW = 20.0, 12.0
# Far beyond float32, but small enough for the margins and ticks of a log axis.
_LARGEST = 1e100


def _scale_log(axes: Axes, low: float, high: float, lane: float) -> None:
    """Make the vertical axis logarithmic, from a little below ``low`` to a lane above ``high``."""
    low, high = (min(max(end, 1 / _LARGEST), _LARGEST) for end in (low, high))
    # At least half a decade, or rounding errors of a constant would look like waves.
    if high / low < 3:
        low, high = low / math.sqrt(3), high * math.sqrt(3)
    span = math.log10(high) - math.log10(low)
    top = span / (1 - lane / _height(axes)) - span
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low / 10 ** (0.05 * span), min(high * 10 ** (0.03 * span + top), 10 * _LARGEST))
    subs = (1.0,) if span > 2.5 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _scale_linear(axes: Axes, low: float, high: float, lane: float) -> None:
    """Make the vertical axis linear, from a little below ``low`` to a lane above ``high``."""
    low, high = (min(max(end, -_LARGEST), _LARGEST) for end in (low, high))
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


def decades(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return ticks for an axis of common logarithms: powers of ten, or more if they are few."""
    inside: list[float] = []
    for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = LogLocator(subs=subs, numticks=most).tick_values(10**low, 10**high)
        inside = [float(np.log10(tick)) for tick in ticks if low <= np.log10(tick) <= high]
        if len(inside) > 2:
            return inside
    return inside if len(inside) == 2 else np.linspace(low, high, 3).tolist()


def _height(axes: Axes) -> float:
    return float(axes.bbox.height)
