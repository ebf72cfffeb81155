"""A histogram of gradient norms by what happened to the step."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gradstable._src.report.frame import HALF, LARGEST, Size, decades, figure, name_axes, plain
from gradstable._src.report.panel import Key, Panel
from gradstable._src.report.summary import counted, plain_short
from gradstable._src.report.theme import color
from gradstable._src.telemetry.run import Run

_CELLS = 48
# Fewer steps make fewer, wider cells, so that each cell holds some.
_STEPS_A_CELL = 6
_LEAST_CELLS = 12
# Decades by which the axis extends beyond the accepted norms.
_BEYOND = 1.5
_LARGEST = math.log10(LARGEST)


def norms(run: Run) -> Panel:
    """Return the histogram of the logarithm of the gradient norm."""
    title = "How large gradients were"
    usable = np.isfinite(run.grad_norm) & (run.grad_norm > 0)
    if not usable.any():
        label = "No finite gradient norm was recorded."
        return Panel("histogram", title, "", label, (), None)
    logs = np.log10(run.grad_norm, where=usable, out=np.full(len(usable), np.nan))
    low, high = _range(logs, run)
    groups = [
        ("accepted unchanged", "main", None, usable & ~run.rejected & ~run.clipped),
        ("clipped", "warn", "////", usable & run.clipped),
        ("rejected", "bad", "xxxx", usable & run.rejected),
    ]
    groups = [group for group in groups if group[3].any()]
    out = int(np.count_nonzero(~usable))
    reading = "Steps by gradient norm; both axes are logarithmic, so that single steps show."
    if out:
        reading += f" {counted(out, 'step')} had a norm of zero, NaN or infinity."
    reading += _beyond(logs[usable], low, high)
    shapes = {None: "fill", "////": "hatch", "xxxx": "cross"}
    keys = [Key(shapes[hatch], tone, text) for text, tone, hatch, _ in groups]

    def draw(size: Size) -> Figure:
        drawn, (axes,) = figure(size, (200,))
        cells = int(np.clip(np.count_nonzero(usable) // _STEPS_A_CELL, _LEAST_CELLS, _CELLS))
        edges = np.linspace(low, high, cells + 1)
        below = np.zeros(cells)
        for _, tone, hatch, where in groups:
            count = np.histogram(np.clip(logs[where], low, high), edges)[0]
            seen = count > 0
            axes.bar(
                edges[:-1][seen], count[seen], width=np.diff(edges)[seen], bottom=below[seen],
                align="edge", facecolor=color(tone if hatch is None else "card"), hatch=hatch,
                edgecolor=color("card" if hatch is None else tone),
                linewidth=0.8 if hatch is None else 1.4,
            )  # fmt: skip
            below += count
        _scale(drawn, edges, most=float(below.max()))
        return drawn

    least, most, median = (find(run.grad_norm[usable]) for find in (np.min, np.max, np.median))
    label = (
        f"Histogram of {counted(int(usable.sum()), 'gradient norm')} from {plain_short(least)} to "
        f"{plain_short(most)}, median {plain_short(median)}."
    )
    return Panel("histogram", title, reading, label, keys, draw, sizes=(HALF,))


def _range(logs: np.ndarray, run: Run) -> tuple[float, float]:
    """Return the ends of the axis: all accepted norms, and others close to them."""
    logs = np.clip(logs, -_LARGEST, _LARGEST)
    known = logs[np.isfinite(logs)]
    usual = logs[np.isfinite(logs) & ~run.rejected]
    usual = usual if usual.size else known
    low = max(float(known.min()), float(usual.min()) - _BEYOND)
    high = min(float(known.max()), float(usual.max()) + _BEYOND)
    room = max(0.5 * (0.3 - (high - low)), 0.0)
    return low - room, high + room


def _beyond(logs: np.ndarray, low: float, high: float) -> str:
    above, below = int(np.sum(logs > high)), int(np.sum(logs < low))
    last = f" The last bar also holds {counted(above, 'larger norm')}." if above else ""
    return last + (f" The first also holds {counted(below, 'smaller norm')}." if below else "")


def _scale(drawn: Figure, edges: np.ndarray, *, most: float) -> None:
    axes = drawn.axes[0]
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(0.7, 1.6 * max(most, 2.0))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xticks(decades(edges[0], edges[-1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain_short(10**x)))
    axes.set_xlabel("gradient norm", labelpad=2)
    name_axes(axes, "steps, logarithmic")
