"""Taps over the steps: maps of all of them, layer by layer, and the curves of one."""

import re

import numpy as np

from gradstable._src.report.chart import Chart, Drawn, Key, Line, Panel
from gradstable._src.report.heat import Heat, drawn
from gradstable._src.report.leaves import NAME_LETTERS, short_path
from gradstable._src.report.table import Table, of_column
from gradstable._src.telemetry.run import Run

MOST_TAPS = 40
# Rows of the tables of all taps together, and of each at least.
_ROWS, _LEAST_ROWS = 6000, 120
_LINES = {
    "largest value": ("forward", "max_abs", "bad", ()),
    "root mean square": ("forward", "rms", "main", ()),
    "root mean square of its gradient": ("gradient", "rms", "good", (5.0, 3.0)),
}


def tap_values(run: Run) -> Panel | None:
    """Return the map of the largest values at all taps, or of those that grew most."""
    return _map(run, "forward", "max_abs", "taps", "Largest value at each tap", "largest value")


def tap_gradients(run: Run) -> Panel | None:
    """Return the map of the root mean squares of their gradients."""
    title = "Gradient at each tap"
    return _map(run, "gradient", "rms", "tap-gradients", title, "root mean square")


def _map(run: Run, side: str, number: str, key: str, title: str, what: str) -> Panel | None:
    if not run.taps:
        return None
    steps = np.unique(np.concatenate([tap.step for tap in run.taps.values()]))
    names = sorted(run.taps, key=_in_order)
    values = np.full((len(steps), len(names)), np.nan)
    broken = np.zeros(values.shape, bool)
    for row, name in enumerate(names):
        columns = getattr(run.taps[name], side)
        at = np.searchsorted(steps, run.taps[name].step)
        values[at, row] = columns[number]
        broken[at, row] = columns["not_finite"] > 0
    shown = _chosen(values, broken)
    reading = f"One row per tap; each color is the {what} within its stretch of steps."
    if len(shown) < len(names):
        reading += (
            f" Shown are {len(shown)} of {len(names)} taps: those that were not finite, then those "
            "that grew most."
        )
    values, broken = values[:, shown], broken[:, shown]
    kept = [names[row] for row in shown]
    labels = [short_path(name, letters=NAME_LETTERS) for name in kept]
    heat = drawn(Heat(steps, values, broken, labels, what))
    top = kept[int(np.argmax(_largest(values)))]
    label = (
        f"{title}: {len(kept)} taps at {len(steps):,} steps. The largest is at {top}; "
        f"{int(broken.any(axis=0).sum())} had entries that were not finite."
    )
    keys = [Key("line", "bad", "NaN or infinite entries")] if broken.any() else []
    return Panel(key, title, reading, label, keys, [heat])


def tap_curves(run: Run) -> tuple[Panel | None, dict[str, Table]]:
    """Return the chart of one tap, which the reader chooses, and the tables of all."""
    if not run.taps:
        return None, {}
    names = sorted(run.taps, key=_in_order)[:MOST_TAPS]
    most = max(_LEAST_ROWS, _ROWS // len(names))
    tables, charts = {}, {}
    for place, name in enumerate(names):
        tap, key = run.taps[name], f"tap-{place}"
        columns = {
            text: getattr(tap, side)[number] for text, (side, number, _, _) in _LINES.items()
        }
        tables[key] = of_column(tap.step, columns, most=most)
        lines = [Line(key, text, text, tone, dash) for text, (_, _, tone, dash) in _LINES.items()]
        charts[name] = Chart("tap, gradient", lines).to_json()
    keys = [
        Key("dash" if dash else "line", tone, text) for text, (_, _, tone, dash) in _LINES.items()
    ]
    label = f"Curves of one of {len(names)} taps: {', '.join(_LINES)}."
    choice = Drawn("choice", {"label": "tap", "charts": charts})
    return Panel("tap-curves", "One tap over time", "", label, keys, [choice]), tables


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a key that puts block 10 behind block 9."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _largest(values: np.ndarray) -> np.ndarray:
    return np.max(values, axis=0, initial=-1.0, where=np.isfinite(values))


def _chosen(values: np.ndarray, broken: np.ndarray) -> list[int]:
    """Return which taps to show, in order."""
    known = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    least = np.fmin.reduce(known, axis=0)
    grown = np.nan_to_num(_largest(values) / least, nan=0.0)
    count = np.count_nonzero(broken, axis=0)
    ranked = sorted(range(values.shape[1]), key=lambda row: (-count[row], -grown[row]))
    return sorted(ranked[:MOST_TAPS])
