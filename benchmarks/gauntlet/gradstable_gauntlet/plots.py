"""The charts of the page: loss curves over time, and final losses by learning rate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from gradstable._src.report.chart import Key
from gradstable._src.report.numbers import plain
from gradstable._src.report.theme import CURVES
from gradstable_gauntlet.axes import decades, scale
from gradstable_gauntlet.measures import CLEAN, bad_as_inf, middle
from gradstable_gauntlet.picture import Picture
from gradstable_gauntlet.results import Cell, Results
from gradstable_gauntlet.svg import FONT, color
from gradstable_gauntlet.tables import named

MOST_SHOWN = len(CURVES)
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    "-",
    (0, (5, 2)),
)
_SHAPES = ("line", "dash", "dot", "dashdot", "line", "dash")
_WIDTH, _LEFT = 1100, 52
_DOTS_PER_INCH = 72  # a point of the figure is a pixel of the page
_HEIGHT, _BETWEEN, _TOP, _BOTTOM, _RIGHT = 132, 44, 30, 38, 22
# A rising loss is shown up to this many times the highest of the calm runs.
_HEADROOM = 3.0


def curves(
    results: Results, contestants: Sequence[str], tasks: Sequence[str], storms: Sequence[str]
) -> Picture:
    """Return the training losses over time, with a row per storm and a column per task."""
    cells = _cells(results, contestants, tasks)
    reading = (
        "Training loss over the steps, logarithmic, smoothed, median over seeds. A line that "
        "leaves through the top is far above the visible range; × is where the loss is no longer "
        "finite. Where lines coincide, the storm made no difference between the runs."
    )

    def draw() -> Figure:
        drawn, grid = _grid(len(storms), len(tasks))
        for row, storm in enumerate(storms):
            for column, task in enumerate(tasks):
                axes = grid[row][column]
                low, high = _limits(cells, contestants, task, storms)
                scale(axes, np.array([low, high]), rows=2)
                _title(axes, f"{task}: {storm}")
                _draw_curves(axes, results, cells, contestants, task, storm)
                _few_steps(axes, int(results.tasks[task]["steps"]), last=row == len(storms) - 1)
        return drawn

    label = (
        f"Loss curves of {', '.join(contestants)} in the tasks {', '.join(tasks)}, each in these "
        f"storms: {', '.join(storms)}."
    )
    keys = _keys(results, contestants)
    there = draw if contestants and tasks and storms else None
    return Picture("curves", "Loss over time", reading, label, keys, there)


def rates(results: Results, contestants: Sequence[str], tasks: Sequence[str]) -> Picture:
    """Return the final losses by learning rate in calm weather, with a chart per task."""
    cells = _cells(results, contestants, tasks)
    reading = (
        "Final held-out loss by learning rate, in calm weather, both logarithmic, median over "
        "seeds. A dot is the chosen rate. The wider and flatter the valley, the less the rate "
        "needs tuning; × is a rate at which the loss is not finite."
    )
    columns = min(4, max(len(tasks), 1))

    def draw() -> Figure:
        rows = -(-len(tasks) // columns)
        drawn, grid = _grid(rows, columns, empty=rows * columns - len(tasks))
        for place, task in enumerate(tasks):
            row, column = divmod(place, columns)
            axes = grid[row][column]
            _title(axes, task)
            _draw_rates(axes, results, cells, contestants, task)
            if place + columns >= len(tasks):
                axes.set_xlabel("learning rate", labelpad=2)
        return drawn

    label = f"Final loss by learning rate of {', '.join(contestants)}, in {', '.join(tasks)}."
    keys = _keys(results, contestants)
    there = draw if contestants and tasks and len(results.rates) else None
    return Picture("rates", "Loss by learning rate", reading, label, keys, there)


def _cells(
    results: Results, contestants: Sequence[str], tasks: Sequence[str]
) -> dict[tuple[str, str], Cell]:
    return {
        (cell.task, cell.contestant): cell
        for cell in results.cells
        if cell.task in tasks and cell.contestant in contestants
    }


def _keys(results: Results, contestants: Sequence[str]) -> list[Key]:
    return [
        Key(
            _SHAPES[place], CURVES[place], named(name, ours=bool(results.contestants[name]["ours"]))
        )
        for place, name in enumerate(contestants)
    ]


def _grid(rows: int, columns: int, *, empty: int = 0) -> tuple[Figure, list[list[Axes]]]:
    """Return axes in rows and columns, with this many left out at the end of the last row."""
    height = _TOP + rows * _HEIGHT + (rows - 1) * _BETWEEN + _BOTTOM
    # No pyplot: it would choose a window system and keep every figure.
    made = Figure(figsize=(_WIDTH / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH)
    each = (_WIDTH - columns * _LEFT - _RIGHT) / columns
    grid: list[list[Axes]] = []
    for row in range(rows):
        bottom = height - _TOP - _HEIGHT - row * (_HEIGHT + _BETWEEN)
        shown = columns - (empty if row == rows - 1 else 0)
        lefts = [_LEFT + column * (each + _LEFT) for column in range(shown)]
        grid.append([
            made.add_axes((left / _WIDTH, bottom / height, each / _WIDTH, _HEIGHT / height))
            for left in lefts
        ])  # fmt: skip
    return made, grid


def _title(axes: Axes, text: str) -> None:
    axes.text(
        0, 1.03, text, transform=axes.transAxes, fontsize=FONT, color=color("ink"),
        va="bottom", ha="left", clip_on=False, parse_math=False,
    )  # fmt: skip


def _limits(
    cells: dict[tuple[str, str], Cell],
    contestants: Sequence[str],
    task: str,
    storms: Sequence[str],
) -> tuple[float, float]:
    """Return the range of losses shown for a task: lowest in any storm, highest when calm."""
    fates = [cells[task, name].fates for name in contestants if (task, name) in cells]
    every = [fate[storm].curve for fate in fates for storm in storms if storm in fate]
    calm = [fate[CLEAN].curve for fate in fates if CLEAN in fate] or every
    low, high = (np.concatenate(some) if some else np.array([]) for some in (every, calm))
    low, high = (some[np.isfinite(some) & (some > 0)] for some in (low, high))
    if not low.size:
        return 0.1, 1.0
    most = float(high.max()) if high.size else float(low.max())
    least = float(low.min())
    return least, max(_HEADROOM * most, 2.0 * least)


def _draw_curves(
    axes: Axes,
    results: Results,
    cells: dict[tuple[str, str], Cell],
    contestants: Sequence[str],
    task: str,
    storm: str,
) -> None:
    # The first on top: the others are compared with it.
    for place, name in reversed(list(enumerate(contestants))):
        cell = cells.get((task, name))
        if cell is None or storm not in cell.fates:
            continue
        values = cell.fates[storm].curve
        x = np.linspace(0, float(results.tasks[task]["steps"]), max(len(values), 2))[: len(values)]
        good = np.isfinite(values) & (values > 0)
        axes.plot(x, np.where(good, values, np.nan), **_look(place, 1.5))
        # Where it ends for good, not where a single value is missing.
        if len(values) and not np.isfinite(values[-1]):
            kept = np.flatnonzero(np.isfinite(values))
            _mark_top(axes, float(x[min(kept[-1] + 1 if kept.size else 0, len(x) - 1)]), place)


def _draw_rates(
    axes: Axes,
    results: Results,
    cells: dict[tuple[str, str], Cell],
    contestants: Sequence[str],
    task: str,
) -> None:
    x = np.asarray(results.rates, np.float64)
    known = {name: cells[task, name] for name in contestants if (task, name) in cells}
    medians = {name: np.median(bad_as_inf(cell.sweep), axis=1) for name, cell in known.items()}
    starts = [middle(cell.start) for cell in known.values()]
    finite = [values[np.isfinite(values) & (values > 0)] for values in medians.values()]
    every = np.concatenate(finite) if finite else np.array([])
    # A run that ends far above its start has not learned; how far above does not matter.
    limit = _HEADROOM * max((start for start in starts if math.isfinite(start)), default=math.inf)
    scale(axes, np.minimum(every, limit), rows=2)
    axes.set_xscale("log")
    axes.set_xlim(x[0] / 1.3, x[-1] * 1.3)
    for place, name in reversed(list(enumerate(contestants))):
        if name not in known:
            continue
        values = np.where(np.isfinite(medians[name]), medians[name], np.nan)
        axes.plot(x, np.where(values > 0, values, np.nan), **_look(place, 1.5))
        chosen = np.isclose(x, known[name].rate)
        axes.plot(x[chosen], values[chosen], "o", color=color(CURVES[place]), markersize=5)
        for bad in x[np.isnan(values)]:
            _mark_top(axes, float(bad), place)
    axes.set_xticks([10**tick for tick in decades(math.log10(x[0]), math.log10(x[-1]), most=5)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(float(f"{value:.3g}"))))


def _look(place: int, width: float) -> dict[str, Any]:
    return {"color": color(CURVES[place]), "linestyle": _DASHES[place], "linewidth": width}


def _mark_top(axes: Axes, x: float, place: int) -> None:
    """Mark a position at the top edge, with a row of marks for each contestant."""
    y = 0.97 - 0.055 * place
    axes.plot(
        [x], [y], "x", transform=axes.get_xaxis_transform(), color=color(CURVES[place]),
        markersize=4.5, markeredgewidth=1.3, clip_on=False, zorder=4,
    )  # fmt: skip


def _few_steps(axes: Axes, steps: int, *, last: bool) -> None:
    axes.set_xlim(0, max(steps, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 2.5, 5, 10], nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if last:
        axes.set_xlabel("step", labelpad=2)
