"""Several runs on one page: overlaid curves, and numbers side by side."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from gradstable._src.report import curves
from gradstable._src.report import table as rows
from gradstable._src.report.chart import Chart, Data, Key, Line, Mark, Panel, section, to_json
from gradstable._src.report.numbers import counted, plain, plain_short
from gradstable._src.report.scalars import MOST_SCALARS, spans_decades
from gradstable._src.report.summary import leaf_name, told_loss, verdict, worst_leaf
from gradstable._src.report.table import Table, is_long, of_column
from gradstable._src.report.template import page
from gradstable._src.report.theme import CURVES
from gradstable._src.telemetry.run import Run

_DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0), (), (5.0, 2.0))
_SHAPES = ("line", "dash", "dot", "dashdot", "line", "dash")
_MOST_LANES = 4
_MOST_ROWS = 3000  # of the tables of one reported number, all runs together
_NOTHING = "–"
_TOP_EDGE = (
    "At the top, one row per run: × where steps were rejected, ■ where the loss or the gradient "
    "was not finite but the step was not rejected."
)
_VERDICTS = ((rows.REJECTED, "cross"), (rows.LOSS_BROKEN | rows.NORM_BROKEN, "square"))


class _Column(NamedTuple):
    """A column of all runs that has a chart."""

    name: str
    title: str
    text: str
    reading: str
    marks: Sequence[tuple[int, str]] = ()
    stepped: bool = False

    def is_known(self, run: Run) -> bool:
        """Return whether there is something to show; a factor that never moved is not."""
        values = self.of(run)
        return bool(np.any(values != 1.0) if self.stepped else values.size)

    def of(self, run: Run) -> np.ndarray:
        """Return its finite values."""
        values = curves.columns_of(run)[self.name]
        return values[np.isfinite(values)]


_COLUMNS = (
    _Column("loss", "Loss", "loss", _TOP_EDGE, _VERDICTS),
    _Column("grad_norm", "Gradient norm", "norm", _TOP_EDGE, _VERDICTS),
    _Column(
        "lr_factor",
        "Factor on the learning rate",
        "factor",
        "By how much back-off or a plateau has lowered the step.",
        stepped=True,
    ),
    _Column(
        "update_ratio",
        "Size of updates",
        "update / parameters",
        "The norm of the update relative to that of the parameters.",
    ),
)


def compare(runs: Sequence[Run], *, title: str | None = None, reload: float | None = None) -> str:
    """Return the page that compares two or more runs.

    Args:
      runs: at least two; beyond the sixth, the looks of the curves repeat.
      title: the title of the page. Default: the names of the runs.
      reload: after how many seconds the page reloads itself.

    Returns:
      The text of an HTML document.
    """
    names = distinct_names(runs)
    overlays = [_overlay(runs, names, one) for one in _COLUMNS]
    numbers, tables = _numbers(runs, names)
    # Without one of the first two, the page says what is missing.
    panels = [panel for panel in overlays if panel.charts or panel.key in ("loss", "grad_norm")]
    panels += [] if numbers is None else [numbers]
    for place, run in enumerate(runs):
        tables |= {f"{_key(place)}-{name}": one for name, one in curves.tables(run).items()}
    steps = [float(run.step[end]) for run in runs if len(run.step) for end in (0, -1)]
    back = [(event.step, _tone(place)) for place, run in enumerate(runs) for event in run.rollbacks]
    return page(
        title=title or " · ".join(names),
        under=f'<p class="soft">{counted(len(runs), "run")}, side by side</p>',
        body="\n".join([*map(section, panels), _table(runs, names), _settings(runs, names)]),
        foot="Files: " + ", ".join(run.path for run in runs),
        data=to_json(
            panels,
            Data((min(steps, default=0.0), max(steps, default=1.0)), tables, (), sorted(back)),
        ),
        reload=reload,
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs, numbered if they are the same."""
    names = [run.name for run in runs]
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _overlay(runs: Sequence[Run], names: Sequence[str], column: _Column) -> Panel:
    """Return a chart of the same column of all runs that have it."""
    known = [place for place, run in enumerate(runs) if column.is_known(run)]
    key, title = column.name, column.title
    if not known:
        return Panel(key, title, "", "None of these runs recorded it.")
    reading = column.reading
    if len(known) < len(runs):
        missing = [name for place, name in enumerate(names) if place not in known]
        reading += f" Not recorded in {', '.join(missing)}."
    keys = [Key(_SHAPES[place % len(CURVES)], _tone(place), names[place]) for place in known]
    if any(runs[place].rollbacks for place in known):
        keys.append(Key("upright", "soft", "rollback, in the color of its run"))
    # The first run on top: it is the one that others are compared with.
    lines = [
        line
        for place in reversed(known)
        for line in _lines(place, names[place], column, column.of(runs[place]))
    ]
    marks = [
        Mark(f"{_key(place)}-{curves.STEPS}", bits, shape, _tone(place), row=row)
        for row, place in enumerate(known[:_MOST_LANES])
        for bits, shape in column.marks
    ]
    height = 260 if column.marks else 150
    ends = None
    if column.stepped:
        ends = (0.0, 1.1 * max(1.0, *(float(np.nanmax(runs[place].lr_factor)) for place in known)))
    chart = Chart(column.text, lines, marks, height=height, ends=ends)
    label = f"{title} of each run: {'; '.join(_ends(runs, names, known, column))}."
    return Panel(key, title, reading, label, keys, [chart])


def _lines(place: int, name: str, column: _Column, values: np.ndarray) -> Iterator[Line]:
    tone, dash = _tone(place), _DASHES[place % len(CURVES)]
    steps, medians = (f"{_key(place)}-{table}" for table in (curves.STEPS, curves.MEDIANS))
    if column.stepped or not is_long(values):
        yield Line(steps, column.name, name, tone, dash, width=1.5, stepped=column.stepped)
        return
    yield Line(steps, column.name, name, tone, width=0.8, faint=True)
    yield Line(medians, column.name, name, tone, dash, width=1.8, quiet=True)


def _ends(
    runs: Sequence[Run], names: Sequence[str], known: Sequence[int], column: _Column
) -> Iterator[str]:
    for place in known:
        values = column.of(runs[place])
        yield f"{names[place]} from {plain(float(values[0]))} to {plain(float(values[-1]))}"


def _numbers(runs: Sequence[Run], names: Sequence[str]) -> tuple[Panel | None, dict[str, Table]]:
    """Return a chart for each number that training loops reported, with the runs that have it."""
    known = list(dict.fromkeys(name for run in runs for name in run.scalars))[:MOST_SCALARS]
    tables: dict[str, Table] = {}
    charts: list[Chart] = []
    shown: set[int] = set()
    for number, name in enumerate(known):
        lines, every = [], []
        for place, run in enumerate(runs):
            if name in run.scalars and np.isfinite(run.scalars[name].value).any():
                step, value = run.scalars[name]
                key = f"{_key(place)}-scalar-{number}"
                tables[key] = of_column(step, {"value": value}, most=_MOST_ROWS // len(runs))
                dash = _DASHES[place % len(CURVES)]
                lines.append(Line(key, "value", names[place], _tone(place), dash, width=1.5))
                every.append(value)
                shown.add(place)
        if lines:
            log = spans_decades(*every)
            charts.append(Chart(name, list(reversed(lines)), height=150, log=log))
    if not charts:
        return None, {}
    keys = [
        Key(_SHAPES[place % len(CURVES)], _tone(place), names[place]) for place in sorted(shown)
    ]
    label = f"{counted(len(charts), 'number')} over the steps: {', '.join(known)}."
    return Panel("scalars", "Your numbers", "", label, keys, charts, grid=True), tables


def _key(place: int) -> str:
    return f"run-{place}"


def _tone(place: int) -> str:
    return CURVES[place % len(CURVES)]


def _table(runs: Sequence[Run], names: Sequence[str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{escape(text_of(run))}</td>" for run in runs)
        + "</tr>"
        for name, text_of in _ROWS.items()
    )
    rows += "".join(
        f'<tr><th scope="row">{escape(name)}, last</th>'
        + "".join(f"<td>{escape(_last(run, name))}</td>" for run in runs)
        + "</tr>"
        for name in dict.fromkeys(name for run in runs for name in run.scalars)
    )
    verdicts = "".join(
        '<tr><th scope="row">verdict</th>'
        + "".join(f"<td>{escape(verdict(run).text)}</td>" for run in runs)
        + "</tr>"
    )
    return (
        '<section class="card" id="numbers"><h2>Side by side</h2><div class="scroll"><table>'
        f"{_head(names)}<tbody>{rows}{verdicts}</tbody></table></div></section>"
    )


def _settings(runs: Sequence[Run], names: Sequence[str]) -> str:
    every = list(dict.fromkeys(name for run in runs for name in run.config))
    rows = []
    for name in every:
        values = [str(run.config[name]) if name in run.config else _NOTHING for run in runs]
        differs = len(set(values)) > 1
        cells = "".join(f"<td><code>{escape(value)}</code></td>" for value in values)
        mark = " ≠" if differs else ""
        rows.append((not differs, f'<tr><th scope="row">{escape(name)}{mark}</th>{cells}</tr>'))
    if not rows:
        return ""
    # Settings that differ come first.
    lines = "".join(line for _, line in sorted(rows, key=lambda row: row[0]))
    return (
        '<section class="card" id="settings"><h2>Settings</h2>'
        '<p class="soft">≠ marks settings that differ.</p><div class="scroll"><table>'
        f"{_head(names)}<tbody>{lines}</tbody></table></div></section>"
    )


def _head(names: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f'<thead><tr><th scope="col"></th>{cells}</tr></thead>'


def _number(value: float) -> str:
    return plain_short(value) if np.isfinite(value) else _NOTHING


def _extreme(find: Callable[[np.ndarray], float], values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return _number(float(find(finite))) if finite.size else _NOTHING


def _last(run: Run, name: str) -> str:
    values = run.scalars[name].value if name in run.scalars else np.empty(0)
    return _number(float(values[-1])) if values.size else _NOTHING


def _first_rejection(run: Run) -> str:
    steps = run.step[run.rejected]
    if not steps.size:
        return _NOTHING
    leaf = int(run.worst_leaf[run.rejected][0])
    return f"{steps[0]:,}" + (f", {leaf_name(run, leaf)}" if leaf >= 0 else "")


_ROWS: dict[str, Callable[[Run], str]] = {
    "steps": lambda run: f"{len(run.step):,}",
    "rejected": lambda run: f"{int(run.rejected.sum()):,}",
    "clipped": lambda run: f"{int(run.clipped.sum()):,}",
    "loss, at the beginning and at the end": lambda run: told_loss(run)[0],
    "median norm": lambda run: _extreme(np.median, run.grad_norm),
    "largest accepted norm": lambda run: _extreme(np.max, run.grad_norm[~run.rejected]),
    "largest accepted RMS_t": lambda run: _extreme(np.max, run.rms[~run.rejected]),
    "steps with an alarm": lambda run: f"{int((run.alarms > 0).sum()):,}",
    "rollbacks": lambda run: f"{len(run.rollbacks):,}",
    "lowest factor on the rate": lambda run: _extreme(np.min, run.lr_factor),
    "last factor on the rate": lambda run: _number(run.lr_factor[-1] if len(run.step) else np.nan),
    "first rejection": _first_rejection,
    "worst leaf": lambda run: worst_leaf(run)[0],
}
