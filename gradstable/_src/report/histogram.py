"""A histogram of gradient norms by what happened to the step."""

import numpy as np

from gradstable._src.report.chart import Drawn, Key, Panel
from gradstable._src.report.numbers import counted, plain_short
from gradstable._src.telemetry.run import Run

_CELLS = 48
# Fewer steps make fewer, wider cells, so that each cell holds some.
_STEPS_A_CELL = 6
_LEAST_CELLS = 12
# Decades by which the axis extends beyond the accepted norms.
_BEYOND = 1.5
# Far beyond float32, but far enough from the end of float64.
_LARGEST = 100.0


def norms(run: Run) -> Panel:
    """Return the histogram of the logarithm of the gradient norm."""
    title = "How large gradients were"
    usable = np.isfinite(run.grad_norm) & (run.grad_norm > 0)
    if not usable.any():
        label = "No finite gradient norm was recorded."
        return Panel("histogram", title, "", label)
    logs = np.log10(run.grad_norm, where=usable, out=np.full(len(usable), np.nan))
    low, high = _range(logs, run)
    groups = [
        ("accepted unchanged", "main", usable & ~run.rejected & ~run.clipped),
        ("clipped", "warn", usable & run.clipped),
        ("rejected", "bad", usable & run.rejected),
    ]
    groups = [group for group in groups if group[2].any()]
    out = int(np.count_nonzero(~usable))
    reading = "Steps by gradient norm; both axes are logarithmic, so that single steps show."
    if out:
        reading += f" {counted(out, 'step')} had a norm of zero, NaN or infinity."
    reading += _beyond(logs[usable], low, high)
    keys = [Key("fill", tone, text) for text, tone, _ in groups]
    cells = int(np.clip(np.count_nonzero(usable) // _STEPS_A_CELL, _LEAST_CELLS, _CELLS))
    edges = np.linspace(low, high, cells + 1)
    bars = [
        {
            "label": text,
            "tone": tone,
            "counts": np.histogram(np.clip(logs[where], low, high), edges)[0].tolist(),
        }
        for text, tone, where in groups
    ]
    least, most, median = (find(run.grad_norm[usable]) for find in (np.min, np.max, np.median))
    label = (
        f"Histogram of {counted(int(usable.sum()), 'gradient norm')} from {plain_short(least)} to "
        f"{plain_short(most)}, median {plain_short(median)}."
    )
    chart = Drawn("bars", {"name": "gradient norm", "logs": [low, high], "bars": bars})
    return Panel("histogram", title, reading, label, keys, [chart])


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
