"""A map of numbers over the steps: one row per leaf or tap, each color the largest in its cell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstable._src.report.binning import maxima
from gradstable._src.report.chart import Drawn
from gradstable._src.report.table import packed

_COLUMNS = 400
# Numbers that only a few samples reach may saturate, so that the map shows the rest.
_LOW, _HIGH = 1.0, 99.5
# Codes of cells: nothing known, the lowest and the highest color, and not finite.
_UNKNOWN, _FIRST, _LAST, _BROKEN = 0, 1, 250, 255
_LARGEST = 1e100


class Heat(NamedTuple):
    """What a map shows.

    Attributes:
      steps: int64 ``[m]``, ascending.
      values: float64 ``[m, rows]``; NaN where nothing is known.
      broken: bool ``[m, rows]``, where a red line is drawn.
      names: the rows.
      what: what the colors show.
    """

    steps: np.ndarray
    values: np.ndarray
    broken: np.ndarray
    names: Sequence[str]
    what: str


def drawn(heat: Heat) -> Drawn:
    """Return a map for the page, with cells as codes of one byte on a logarithmic scale."""
    cells, (first, last) = maxima(heat.steps, heat.values, bins=_COLUMNS)
    broken, _ = maxima(heat.steps, heat.broken.astype(np.float16), bins=_COLUMNS)
    positive = cells[np.isfinite(cells) & (cells > 0)]
    low, high = np.percentile(positive, (_LOW, _HIGH)) if positive.size else (0.1, 1.0)
    low, high = (float(np.clip(end, 1 / _LARGEST, _LARGEST)) for end in (low, high))
    low, high = np.log10(low), np.log10(max(high, low * 1.5))
    finite = np.isfinite(cells)
    logs = np.log10(np.where(finite & (cells > 0), cells, 10.0**low))
    share = np.clip((logs - low) / (high - low), 0.0, 1.0)
    codes = np.where(finite, np.round(_FIRST + share * (_LAST - _FIRST)), _UNKNOWN)
    codes = np.where(broken == 1.0, _BROKEN, codes).astype(np.uint8)
    return Drawn(
        "heat",
        {
            "names": list(heat.names),
            "what": heat.what,
            "cells": packed(codes),
            "columns": cells.shape[1],
            "steps": [first, last],
            "logs": [float(low), float(high)],
        },
    )
