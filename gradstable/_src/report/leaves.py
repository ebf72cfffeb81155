"""The map of gradient norms: one row per leaf, from the first step to the last."""

import re
from collections import Counter

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
from gradstable._src.report.panel import Key, Panel
from gradstable._src.report.theme import FONT, color
from gradstable._src.telemetry.run import Run

MOST_LEAVES = 40
_ROW, _LEAST_HEIGHT = 17, 60
_COLUMNS = {"wide": 260, "narrow": 110}
# Evenly spaced in lightness for everyone, and never as light or dark as the page.
_COLORS = "viridis"
# Norms that only a few samples reach may saturate, so that the map shows the rest.
_LOW, _HIGH = 1.0, 99.5
# Sizes in pixels: the width of a letter of a path, and the scale with its margin.
_LETTER, _SCALE = 6.3, 14


def leaf_norms(run: Run) -> Panel:
    """Return the map of the gradient norms of all leaves, or of those that matter most."""
    title = "Gradient norm of each leaf"
    if not len(run.leaf_steps) or not len(run.leaves):
        label = "No leaf norms were recorded."
        return Panel("leaves", title, "", label, (), None)
    rows = chosen(run)
    reading = (
        "One row per leaf, in tree order; each color is the largest norm within its stretch of "
        "steps."
    )
    if len(rows) < len(run.leaves):
        reading += (
            f" Shown are {len(rows)} of {len(run.leaves)} leaves: those that were not finite, then "
            "those named by rejected steps, then those with the largest norms."
        )
    shown = run.leaf_norms if len(rows) == len(run.leaves) else run.leaf_norms[:, rows]
    broken = ~np.isfinite(shown)
    keys = [Key("line", "bad", "NaN or infinite")] if broken.any() else []

    def draw(size: Size) -> Figure:
        return _draw(run, rows, shown, broken, size)

    largest = rows[int(np.argmax(_largest(shown)))]
    label = (
        f"Gradient norms of {len(rows)} leaves at {len(run.leaf_steps):,} steps. The largest is in "
        f"{run.leaves[largest]}; {int(broken.any(axis=0).sum())} leaves were NaN or infinite at "
        "some step."
    )
    return Panel("leaves", title, reading, label, keys, draw)


def chosen(run: Run, *, most: int = MOST_LEAVES) -> list[int]:
    """Return which leaves to show, in tree order: at most this many, the most relevant ones."""
    broken = np.count_nonzero(~np.isfinite(run.leaf_norms), axis=0)
    named = Counter(run.worst_leaf[run.rejected].tolist())
    largest = _largest(run.leaf_norms)

    def weight(leaf: int) -> tuple[int, int, float]:
        return int(broken[leaf]), named[leaf], float(largest[leaf])

    ranked = sorted(range(len(run.leaves)), key=weight, reverse=True)
    return sorted(ranked[:most])


def short_path(path: str, *, letters: int) -> str:
    """Return a short path of a leaf: ``['a']['b']`` is ``a/b``, and long ones lose the middle.

    Example:
      >>> short_path("['params']['Dense_0']['kernel']", letters=18)
      'params/D…_0/kernel'
    """
    keys = re.findall(r"\['([^']*)'\]|\[([^\]]*)\]|\.?([^.\[\]]+)", path)
    text = "/".join("".join(key) for key in keys) or path
    if len(text) <= letters:
        return text
    tail = max(letters - letters // 2 - 1, letters - 1 - text.index("/") - 2) if "/" in text else 0
    tail = min(max(tail, (letters - 1) // 2), letters - 2)
    return f"{text[: letters - 1 - tail]}…{text[-tail:]}"


def _largest(norms: np.ndarray) -> np.ndarray:
    """Return the largest finite norm of each leaf, -1 where there is none."""
    return np.max(norms, axis=0, initial=-1.0, where=np.isfinite(norms))


def _draw(run: Run, rows: list[int], shown: np.ndarray, broken: np.ndarray, size: Size) -> Figure:
    most = 32 if size.width > 600 else 18
    names = [short_path(run.leaves[row], letters=most) for row in rows]
    left = int(max(map(len, names)) * _LETTER) + 14
    height = max(_LEAST_HEIGHT, _ROW * len(rows))
    drawn, (axes, bar) = figure(size._replace(left=left), (height, _SCALE))
    columns = _COLUMNS.get(size.name, 200)
    cells, (first, last) = maxima(run.leaf_steps, shown, bins=columns)
    positive = cells[np.isfinite(cells) & (cells > 0)]
    low, high = np.percentile(positive, (_LOW, _HIGH)) if positive.size else (0.1, 1.0)
    low, high = (float(np.clip(end, 1 / LARGEST, LARGEST)) for end in (low, high))
    norm = LogNorm(low, max(high, low * 1.5))
    with np.errstate(invalid="ignore"):
        colors = colormaps[_COLORS](norm(np.clip(np.nan_to_num(cells, posinf=np.nan), low, high)))
    # Unknown norms stay empty, and so do those that are not finite: a line is drawn there.
    colors[~np.isfinite(cells)] = 0.0
    axes.imshow(
        colors, aspect="auto", interpolation="none", extent=(first, last, len(rows) - 0.5, -0.5)
    )
    _draw_broken(axes, run, broken, columns)
    over_steps(axes, Span.of([run]), size, lost=run.lost)
    mark_rollbacks(axes, run)
    axes.grid(visible=False)
    # A path can contain dollar signs but is not a formula.
    axes.set_yticks(range(len(rows)), names, fontsize=FONT - 1, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _draw_scale(bar, norm, size)
    return drawn


def _draw_broken(axes: Axes, run: Run, broken: np.ndarray, columns: int) -> None:
    """Draw a line through a row where its leaf is not finite."""
    cells, (first, last) = maxima(run.leaf_steps, broken.astype(np.float16), bins=columns)
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


def _draw_scale(bar: Axes, norm: LogNorm, size: Size) -> None:
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
    bar.set_xlabel("gradient norm", labelpad=2)
