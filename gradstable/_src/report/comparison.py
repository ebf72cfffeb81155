"""Several runs on one page: overlaid curves, and numbers side by side."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from gradstable._src.report.frame import (
    Size,
    Span,
    curve,
    figure,
    is_long,
    mark_top,
    name_axes,
    over_steps,
    plain,
    scale,
)
from gradstable._src.report.panel import Key, Panel, section
from gradstable._src.report.summary import (
    broken_steps,
    counted,
    leaf_name,
    plain_short,
    shown_loss,
    verdict,
    worst_leaf,
)
from gradstable._src.report.template import page
from gradstable._src.report.theme import CURVES
from gradstable._src.telemetry.run import Run

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (5, 2)))
_SHAPES = ("line", "dash", "dot", "dashdot", "line", "dash")
_MOST_LANES = 4
_NOTHING = "–"


def compare(runs: Sequence[Run], *, title: str | None = None) -> str:
    """Return the page that compares two or more runs.

    Args:
      runs: at least two; beyond the sixth, the looks of the curves repeat.
      title: the title of the page. Default: the names of the runs.

    Returns:
      The text of an HTML document.
    """
    names = distinct_names(runs)
    body = [
        section(_overlay(runs, names, "loss", "Loss", "loss")),
        section(_overlay(runs, names, "grad_norm", "Gradient norm", "norm")),
        _table(runs, names),
        _settings(runs, names),
    ]
    return page(
        title=title or " · ".join(names),
        under=f'<p class="soft">{counted(len(runs), "run")}, side by side</p>',
        body="\n".join(part for part in body if part),
        foot="Files: " + ", ".join(run.path for run in runs),
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs, numbered if they are the same."""
    names = [run.name for run in runs]
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _overlay(
    runs: Sequence[Run], names: Sequence[str], column: str, title: str, text: str
) -> Panel:
    known = [place for place, run in enumerate(runs) if np.isfinite(getattr(run, column)).any()]
    reading = (
        "At the top, one row per run: × where steps were rejected, ■ where the loss or the "
        "gradient was not finite but the step was not rejected."
    )
    many = any(is_long(getattr(run, column)) for run in runs)
    if not known:
        label = "None of these runs recorded it."
        return Panel(column, title, reading, label, (), None)
    looks = [(CURVES[place % len(CURVES)], place % len(CURVES)) for place in range(len(runs))]
    keys = [Key(_SHAPES[looks[place][1]], looks[place][0], names[place]) for place in known]
    if len(known) < len(runs):
        missing = [name for place, name in enumerate(names) if place not in known]
        reading += f" Not recorded in {', '.join(missing)}."

    def draw(size: Size) -> Figure:
        drawn, (axes,) = figure(size, (290,))
        over_steps(axes, Span.of(runs), size)
        shown = [getattr(run, column)[~run.rejected] for run in runs]
        if not any(np.isfinite(one).any() for one in shown):
            shown = [getattr(run, column) for run in runs]
        log = scale(axes, np.concatenate(shown), rows=min(len(known), _MOST_LANES))
        name_axes(axes, f"{text}, logarithmic" if log else text)
        # The first run on top: it is the one that others are compared with.
        for place in reversed(known):
            tone, row = looks[place]
            values = getattr(runs[place], column)
            curve(axes, runs[place], values, size, many=many, tone=tone, dash=_DASHES[row])
        for row, place in enumerate(known[:_MOST_LANES]):
            run, tone = runs[place], looks[place][0]
            for where, marker in ((run.rejected, "x"), (broken_steps(run), "s")):
                mark_top(axes, run.step[where], marker=marker, tone=tone, size=size, row=row)
        return drawn

    ends = [
        f"{names[place]} from {plain(float(values[0]))} to {plain(float(values[-1]))}"
        for place in known
        for values in [getattr(runs[place], column)]
        for values in [values[np.isfinite(values)]]
    ]
    return Panel(column, title, reading, f"{title} of each run: {'; '.join(ends)}.", keys, draw)


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
    "last loss": shown_loss,
    "least loss": lambda run: _extreme(np.min, run.loss),
    "median norm": lambda run: _extreme(np.median, run.grad_norm),
    "largest accepted norm": lambda run: _extreme(np.max, run.grad_norm[~run.rejected]),
    "largest accepted RMS_t": lambda run: _extreme(np.max, run.rms[~run.rejected]),
    "steps with an alarm": lambda run: f"{int((run.alarms > 0).sum()):,}",
    "first rejection": _first_rejection,
    "worst leaf": lambda run: worst_leaf(run)[0],
}
