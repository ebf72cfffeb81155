"""The numbers behind the charts: tables of steps and columns, thinned until a page holds them."""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradstable._src.report.binning import Spans, extremes, medians, merged, some, stretches
from gradstable._src.report.summary import broken_steps
from gradstable._src.telemetry.fields import Alarm
from gradstable._src.telemetry.run import Run

# Rows of a table: many more than a page has pixels, so that zooming in shows more, and few enough
# for a page below 1 MB.
_MOST_ROWS = 6000
_MOST_EVENTS = 2000
_MOST_GAPS = 1000
# A median covers at least this many steps, and a curve has at most this many medians.
_A_MEDIAN, _MEDIANS = 12, 120
# Below this many steps the curve itself is easy to read.
_MANY = 400
_LARGEST = float(np.finfo(np.float32).max)

# What happened to a step, one bit each; the script of the page has the same.
REJECTED, CLIPPED, LOSS_BROKEN, NORM_BROKEN, RMS_ALARM, RATIO_ALARM = (1 << bit for bit in range(6))


class Table(NamedTuple):
    """Numbers over steps.

    Attributes:
      step: float64 ``[n]``, ascending.
      columns: float64 ``[n]`` by name; NaN is a gap in the curve.
      deed: uint8 ``[n]``, bits of what happened to the step; or ``None``.
      reason: uint8 ``[n]``, the codes of ``gs.rules.Reason``; or ``None``.
    """

    step: np.ndarray
    columns: Mapping[str, np.ndarray]
    deed: np.ndarray | None = None
    reason: np.ndarray | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what the script of the page reads."""
        columns = {name: _float32(values) for name, values in self.columns.items()}
        found = {"step": packed(self.step.astype(np.float64)), "columns": columns}
        if self.deed is not None:
            found["deed"] = packed(self.deed)
        if self.reason is not None:
            found["reason"] = packed(self.reason)
        return found


def packed(values: np.ndarray) -> str:
    """Return an array as text: its bytes, the lowest first."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()


def is_long(values: np.ndarray) -> bool:
    """Return whether a curve has enough steps for its medians to be drawn too."""
    return int(np.count_nonzero(np.isfinite(values))) > _MANY


def shown_gaps(lost: Spans) -> list[tuple[int, int]]:
    """Return the stretches that were not recorded, merging some if there are very many."""
    if len(lost) <= _MOST_GAPS:
        return list(lost)
    return merged(lost, within=(lost[-1][1] - lost[0][0]) / _MOST_GAPS)


def of_steps(run: Run, columns: Mapping[str, np.ndarray]) -> Table:
    """Return the table of these columns and of what happened, thinned if the run is long."""
    deed = _deeds(run)
    rows = _kept(run, list(columns.values()), deed)
    reason = np.clip(run.reason, 0, 255).astype(np.uint8)
    table = Table(
        run.step[rows].astype(np.float64),
        {name: values[rows] for name, values in columns.items()},
        deed[rows],
        reason[rows],
    )
    return _with_gaps(table, run.lost)


def of_medians(run: Run, columns: Mapping[str, np.ndarray], at: Table) -> Table | None:
    """Return the medians of long columns over stretches of steps, at steps of another table."""
    columns = {name: values for name, values in columns.items() if is_long(values)}
    if not columns:
        return None
    bins = max(1, min(_MEDIANS, len(run.step) // _A_MEDIAN))
    found: dict[str, dict[float, float]] = {}
    for name, values in columns.items():
        middle, median = medians(run.step, np.where(run.rejected, np.nan, values), bins=bins)
        near = np.clip(np.searchsorted(at.step, middle), 0, len(at.step) - 1)
        found[name] = dict(zip(at.step[near].tolist(), median.tolist(), strict=True))
    steps = sorted({step for one in found.values() for step in one})
    return _with_gaps(
        Table(
            np.array(steps, np.float64),
            {
                name: np.array([one.get(step, np.nan) for step in steps])
                for name, one in found.items()
            },
        ),
        run.lost,
    )


def of_column(step: np.ndarray, columns: Mapping[str, np.ndarray], *, most: int) -> Table:
    """Return a table of columns with steps of their own, with about this many rows at most."""
    rows = _telling(step, list(columns.values()), most=most)
    return Table(
        step[rows].astype(np.float64), {name: values[rows] for name, values in columns.items()}
    )


def _deeds(run: Run) -> np.ndarray:
    broken = broken_steps(run)
    ratio, rms = (
        (run.alarms > 0) & (run.alarms & alarm > 0) for alarm in (Alarm.UPDATE_RATIO, Alarm.RMS)
    )
    bits = {
        REJECTED: run.rejected,
        CLIPPED: run.clipped,
        LOSS_BROKEN: broken & run.has_loss & ~np.isfinite(run.loss),
        NORM_BROKEN: broken & ("grad_norm" in run.known) & ~np.isfinite(run.grad_norm),
        RMS_ALARM: rms,
        RATIO_ALARM: ratio,
    }
    deed = np.zeros(len(run.step), np.uint8)
    for bit, where in bits.items():
        deed |= np.where(where, bit, 0).astype(np.uint8)
    return deed


def _kept(run: Run, columns: list[np.ndarray], deed: np.ndarray) -> np.ndarray:
    """Return the rows of the table: all, or the telling ones."""
    rows = _telling(run.step, columns, most=_MOST_ROWS)
    if len(rows) == len(run.step):
        return rows
    told = np.unique(np.concatenate(stretches(deed > 0)))
    ends = np.array([0, len(run.step) - 1])
    return np.unique(np.concatenate([rows, some(told, most=_MOST_EVENTS), ends]))


def _telling(step: np.ndarray, columns: list[np.ndarray], *, most: int) -> np.ndarray:
    """Return all rows, or about this many: those of the extremes of each column."""
    if len(step) <= most:
        return np.arange(len(step))
    bins = max(1, most // (2 * len(columns)))
    return np.unique(np.concatenate([extremes(step, one, bins=bins) for one in columns]))


def _with_gaps(table: Table, lost: Spans) -> Table:
    """Return the table with an empty row at the begin of each stretch that was not recorded."""
    steps = table.step
    starts = np.array(
        [first for first, _ in shown_gaps(lost) if len(steps) and steps[0] < first <= steps[-1]],
        np.float64,
    )
    # One gap between two points is enough.
    places, kept = np.unique(np.searchsorted(steps, starts), return_index=True)
    return Table(
        np.insert(steps, places, starts[kept]),
        {name: np.insert(values, places, np.nan) for name, values in table.columns.items()},
        None if table.deed is None else np.insert(table.deed, places, 0),
        None if table.reason is None else np.insert(table.reason, places, 0),
    )


def _float32(values: np.ndarray) -> str:
    held = np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), np.nan)
    return packed(held.astype(np.float32))
