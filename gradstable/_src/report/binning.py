"""Reduce curves to fewer points without losing a spike, so that long runs make small pages."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

Spans = Sequence[tuple[int, int]]


def envelope(
    x: np.ndarray, y: np.ndarray, *, bins: int, lost: Spans = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve to the smallest and the largest value of each bin, in order.

    Drawn with one bin per pixel, the result looks like the whole curve.

    Args:
      x: ascending values ``[n]``.
      y: values ``[n]``; non-finite ones become gaps.
      bins: the number of bins of equal width, >= 1.
      lost: the first and last ``x`` of stretches over which no line is drawn.

    Returns:
      ``x`` and ``y`` of a polyline with at most ``2 * bins`` points, plus one NaN per gap.
    """
    y = np.where(np.isfinite(y), y, np.nan)
    if len(x) > 2 * bins:
        kept = np.concatenate([_extremes(y, part) for part in _parts(x, bins)])
        x, y = x[kept], y[kept]
    return _with_gaps(x.astype(np.float64), y, lost)


def medians(x: np.ndarray, y: np.ndarray, *, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and the median of the finite values of each bin that has any."""
    middle, median = [], []
    for part in _parts(x, bins):
        values = y[part]
        values = values[np.isfinite(values)]
        if values.size:
            middle.append((x[part][0] + x[part][-1]) / 2)
            median.append(np.median(values))
    return np.array(middle), np.array(median)


def maxima(x: np.ndarray, rows: np.ndarray, *, bins: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the largest value of each column of ``rows [m, L]`` in each bin of ``x``.

    Returns:
      ``[L, b]`` with at most this many bins (NaN where a bin is empty or has only NaN; infinite
      where there was an infinity), and the left end of the first and right end of the last bin.
    """
    place, cells, ends = _cells(x, bins)
    found = np.full((cells, rows.shape[1]), np.nan)
    begins = np.flatnonzero(np.diff(place, prepend=-1))
    # fmax ignores NaN.
    found[place[begins]] = np.fmax.reduceat(rows, begins, axis=0)
    return found.T, ends


def clusters(steps: np.ndarray, *, within: float) -> list[tuple[int, int]]:
    """Return the first and last of each group of ascending steps no further apart than this."""
    if not len(steps):
        return []
    cut = np.flatnonzero(np.diff(steps) > max(within, 1)) + 1
    return [(int(group[0]), int(group[-1])) for group in np.split(steps, cut)]


def merged(spans: Spans, *, within: float) -> list[tuple[int, int]]:
    """Return spans in order, merging those no further apart than this."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first - found[-1][1] <= max(within, 1):
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def lonely(y: np.ndarray) -> np.ndarray:
    """Return which points lie between two gaps, where a line would not show them."""
    shown = np.concatenate([[False], np.isfinite(y), [False]])
    return shown[1:-1] & ~shown[:-2] & ~shown[2:]


def _parts(x: np.ndarray, bins: int) -> Iterator[slice]:
    """Yield the stretches of ``x`` that share a bin, without empty bins."""
    if not len(x):
        return
    width = (x[-1] - x[0] + 1) / bins
    cut = np.flatnonzero(np.diff(((x - x[0]) / width).astype(np.int64))) + 1
    edges = [0, *cut.tolist(), len(x)]
    for start, stop in pairwise(edges):
        yield slice(start, stop)


def _cells(x: np.ndarray, bins: int) -> tuple[np.ndarray, int, tuple[float, float]]:
    """Return the bin of each ``x``, the number of bins, and the ends of their range."""
    # Use the larger distances; otherwise most bins would be empty where a few steps are dense.
    usual = np.percentile(np.diff(x), 90) if len(x) > 1 else 1.0
    cells = int(min(bins, np.ceil((x[-1] - x[0]) / usual + 1)))
    left, right = x[0] - usual / 2, x[-1] + usual / 2
    place = np.minimum(((x - left) / (right - left) * cells).astype(np.int64), cells - 1)
    return place, cells, (float(left), float(right))


def _extremes(y: np.ndarray, part: slice) -> np.ndarray:
    values = y[part]
    if np.all(np.isnan(values)):
        return np.array([part.start])
    ends = {int(np.nanargmin(values)), int(np.nanargmax(values))}
    return part.start + np.array(sorted(ends))


def _with_gaps(x: np.ndarray, y: np.ndarray, lost: Spans) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([first for first, _ in lost if len(x) and x[0] < first <= x[-1]], np.float64)
    # One gap between two points is enough.
    places, kept = np.unique(np.searchsorted(x, starts), return_index=True)
    return np.insert(x, places, starts[kept]), np.insert(y, places, np.nan)
