"""Medians of all values before a row, for many rows in one go."""

import numpy as np


def medians_before(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the median of the finite values before each row, NaN if there are none.

    One median after another would read the beginning again for every row. Here all rows descend the
    bits of the ranks together, with one pass over the values per bit (a wavelet matrix).

    Args:
      values: float64 ``[n]``.
      rows: int64 ``[k]``, in any order, 0 to ``n``.

    Returns:
      float64 ``[k]``.
    """
    finite = np.isfinite(values)
    known = np.concatenate([[0], np.cumsum(finite)])[rows]
    if not known.any():
        return np.full(len(rows), np.nan)
    used = values[finite][: known.max()]
    order = np.argsort(used, kind="stable")
    ranks = np.empty(len(used), np.int32)
    ranks[order] = np.arange(len(used), dtype=np.int32)
    places = np.stack([np.maximum(known - 1, 0) // 2, np.minimum(known // 2, len(used) - 1)])
    low, high = used[order[_ranked(ranks, np.stack([known, known]), places)]]
    with np.errstate(over="ignore"):
        return np.where(known > 0, (low + high) / 2, np.nan)


def _ranked(ranks: np.ndarray, ends: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the ``places``-th smallest of ``ranks[:ends]``, from 0; arbitrary if that is empty."""
    left, right, found = np.zeros_like(ends), ends, np.zeros_like(ends)
    for bit in reversed(range(max(int(len(ranks) - 1).bit_length(), 1))):
        ones = (ranks >> bit & 1).astype(bool)
        zeros_before = np.concatenate([[0], np.cumsum(~ones)])
        zero_left, zero_right = zeros_before[left], zeros_before[right]
        up = places >= zero_right - zero_left
        # Zeros go to the front and ones behind them, both in order.
        front = zeros_before[-1]
        places = np.where(up, places - (zero_right - zero_left), places)
        found = np.where(up, found | 1 << bit, found)
        left, right = (
            np.where(up, front + end - zero, zero)
            for end, zero in ((left, zero_left), (right, zero_right))
        )
        ranks = np.concatenate([ranks[~ones], ranks[ones]])
    return np.minimum(found, len(ranks) - 1)
