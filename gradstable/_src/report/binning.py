"""Reduce curves to fewer points without losing a spike, so that long runs make small pages."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

Spans = Sequence[tuple[int, int]]


def extremes(x: np.ndarray, y: np.ndarray, *, bins: int) -> np.ndarray:
    """Return the rows of the smallest and the largest value of each bin, in order.

    Drawn with a bin per pixel, these rows look like the whole curve.

    Args:
      x: ascending values ``[n]``.
      y: values ``[n]``; those that are not finite are passed over, unless a bin has no other.
      bins: the number of bins of equal width, >= 1.

    Returns:
      Ascending rows, at most ``2 * bins`` of them.
    """
    if not len(x):
        return np.zeros(0, np.int64)
    width = (x[-1] - x[0] + 1) / bins
    place = ((x - x[0]) / width).astype(np.int64)
    finite = np.isfinite(y)
    high = np.lexsort((np.where(finite, y, -np.inf), place))
    low = np.lexsort((np.where(finite, y, np.inf), place))
    edges = np.flatnonzero(np.diff(place)) + 1
    first, last = np.append(0, edges), np.append(edges, len(x)) - 1
    return np.unique(np.concatenate([low[first], high[last]]))


def some(rows: np.ndarray, *, most: int) -> np.ndarray:
    """Return at most this many of the rows, evenly spread over them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


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


def stretches(where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last row of each run of neighboring rows that are true."""
    edges = np.diff(np.concatenate([[0], where.astype(np.int8), [0]]))
    return np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1


def merged(spans: Spans, *, within: float) -> list[tuple[int, int]]:
    """Return spans in order, merging those no further apart than this."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first - found[-1][1] <= max(within, 1):
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


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
