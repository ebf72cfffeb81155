"""The report: one page for one run, or one page that compares several runs."""

import math
from collections.abc import Sequence
from html import escape
from itertools import starmap
from typing import Any

import numpy as np

from gradstable._src.core.reasons import sentence
from gradstable._src.report import comparison, curves
from gradstable._src.report.chart import Data, section, shape, to_json
from gradstable._src.report.events import Event, events, most_telling, reasons
from gradstable._src.report.histogram import norms
from gradstable._src.report.leaves import leaf_norms
from gradstable._src.report.scalars import scalars
from gradstable._src.report.summary import pattern_sentences, tiles, verdict
from gradstable._src.report.table import Table, shown_gaps
from gradstable._src.report.taps import tap_curves, tap_gradients, tap_values
from gradstable._src.report.template import facts, page
from gradstable._src.telemetry.run import Run

_TONES = {"rejected": "bad", "clipped": "warn"}
_SIGNS = {"good": "✓", "warn": "–", "bad": "✗"}


@np.errstate(all="ignore")  # it is meant for wild numbers
def render(runs: Sequence[Run], *, title: str | None = None, reload: float | None = None) -> str:
    r"""Render a page about one run, or one that compares several.

    The page is a single HTML document that contains all charts, their numbers and scripts, and
    loads nothing from elsewhere. Of long runs, it has the smallest and the largest value of each
    stretch of steps, and what was rejected or clipped, so that 100,000 steps fit into 1 MB and no
    spike is lost.

    Args:
      runs: runs returned by ``gs.telemetry.read_run``, at least one.
      title: the title of the page. Default: the name of the run, or the names of all runs.
      reload: the page reloads itself after this many seconds, for a run that goes on and is
        rendered from time to time. Default: never.

    Returns:
      The text of an HTML document; write it as UTF-8.

    Raises:
      ValueError: if ``runs`` is empty, or ``reload`` is not positive.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import gradstable as gs
      >>> from gradstable.report import render
      >>> folder = Path(tempfile.mkdtemp())
      >>> lines = ['{"event": "run", "format": 1, "name": "short", "leaves": ["w"]}']
      >>> lines += ['{"event": "step", "step": 1, "loss": 2.5, "grad_norm": 1.0, "scale": 1.0}']
      >>> _ = (folder / "run.jsonl").write_text("\n".join(lines))
      >>> text = render([gs.telemetry.read_run(folder / "run.jsonl")])
      >>> text.startswith("<!DOCTYPE html>")
      True
    """
    if not runs:
        msg = "runs is empty: pass at least one run to report"
        raise ValueError(msg)
    if reload is not None and not 0 < reload < math.inf:
        msg = f"reload must be a positive number of seconds, got {reload}"
        raise ValueError(msg)
    if len(runs) == 1:
        return _one(runs[0], title or runs[0].name, reload)
    return comparison.compare(runs, title=title, reload=reload)


def _one(run: Run, title: str, reload: float | None) -> str:
    numbers, number_tables = scalars(run)
    one_tap, tap_tables = tap_curves(run)
    upper = [
        curves.loss(run),
        curves.grad_norm(run),
        curves.warnings(run),
        *([] if numbers is None else [numbers]),
        leaf_norms(run),
        *(panel for panel in (tap_values(run), tap_gradients(run), one_tap) if panel is not None),
    ]
    histogram = norms(run)
    tables = {**curves.tables(run), **number_tables, **tap_tables}
    body = [
        _verdict(run),
        _tiles(run),
        *map(section, upper),
        f'<div class="two">{section(histogram)}{_reasons(run)}</div>',
        _events(run),
        _settings(run),
    ]
    return page(
        title=title,
        under=facts(_facts(run)),
        body="\n".join(part for part in body if part),
        foot=_foot(run),
        data=to_json([*upper, histogram], _data(run, tables)),
        reload=reload,
    )


def _data(run: Run, tables: dict[str, Table]) -> Data:
    steps = run.step if len(run.step) else np.array([0, 1])
    reported = [one.step for one in run.scalars.values() if len(one.step)]
    every = np.concatenate([steps[[0, -1]], *reported])
    codes = np.unique(run.reason[run.rejected | run.clipped]).tolist()
    return Data(
        (float(every.min()), float(every.max())),
        tables,
        shown_gaps(run.lost),
        [(event.step, "note") for event in run.rollbacks],
        {int(code): sentence(code) for code in codes},
    )


def _facts(run: Run) -> dict[str, str]:
    found = {"file": run.path}
    if run.leaves:
        leaves = "1 leaf" if len(run.leaves) == 1 else f"{len(run.leaves):,} leaves"
        known = len(run.sizes) == len(run.leaves)
        found["parameters"] = f"{sum(run.sizes.tolist()):,} in {leaves}" if known else leaves
    dtypes = sorted(set(run.dtypes))
    return {**found, "dtype": ", ".join(dtypes)} if dtypes else found


def _foot(run: Run) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    return f"Recorded with {versions}." if versions else "Recorded by gradstable."


def _verdict(run: Run) -> str:
    mood, text = verdict(run)
    return (
        f'<p class="verdict" style="--tone: var(--{mood})">'
        f'<span aria-hidden="true">{_SIGNS[mood]}</span>{escape(text)}</p>'
    )


def _tiles(run: Run) -> str:
    cells = []
    for name, value, note in tiles(run):
        classes = "value"
        if name == "worst leaf" and value in run.leaves:
            classes += " path"
        elif name in _TONES and value != "0":
            classes += f" {_TONES[name]}"
        cells.append(
            f'<div><dt>{escape(name)}</dt><dd class="{classes}">{escape(value)}</dd>'
            f'<dd class="soft">{escape(note)}</dd></div>'
        )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _reasons(run: Run) -> str:
    found = reasons(run)
    head = '<section class="card" id="reasons"><h2>Why</h2>'
    if not found:
        return f'{head}<p class="nothing">No step was rejected or clipped.</p></section>'
    most = max(max(rejected, cut) for _, rejected, cut in found)
    rows = []
    for text, rejected, cut in found:
        for number, deed in ((rejected, "rejected"), (cut, "clipped")):
            if number:
                width = f"{100 * number / most:.1f}"
                rows.append(
                    f'<tr><td>{escape(text)}<span class="bar" style="width: {width}%; '
                    f'background: var(--{_TONES[deed]})"></span></td>'
                    f'<td class="number">{number:,} {deed}</td></tr>'
                )
    spread = "".join(f'<p class="soft">{escape(text)}</p>' for text in pattern_sentences(run))
    return f"{head}{spread}<table><tbody>{''.join(rows)}</tbody></table></section>"


def _events(run: Run) -> str:
    found = events(run)
    head = '<section class="card" id="events"><h2>What happened</h2>'
    if not found:
        return f'{head}<p class="nothing">Every step passed unchanged.</p></section>'
    shown = most_telling(found)
    note = (
        "Neighboring steps with the same outcome share a row. Click on the steps to see them in "
        "all charts."
    )
    if len(shown) < len(found):
        note += (
            f" Shown are {len(shown)} of {len(found):,} rows: rollbacks first, then steps that "
            "were not recorded, rejections, non-finite steps, notes, alarms, and as many clips "
            "as fit."
        )
    rows = "".join(map(_event, shown))
    return (
        f'{head}<p class="soft">{note}</p><table class="events"><thead><tr>'
        '<th scope="col">steps</th><th scope="col">what</th><th scope="col">why</th>'
        f'<th scope="col">where</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _event(event: Event) -> str:
    where, _, path = event.leaf.rpartition(" in ")
    leaf = f"{escape(where)} in <code>{escape(path)}</code>" if path else ""
    return (
        f'<tr><td class="steps"><a href="#loss" data-first="{event.first}" '
        f'data-last="{event.last}">{event.steps}</a></td><td class="kind">{shape(*event.mark)} '
        f'{escape(event.kind)}</td><td>{escape(event.text)}</td><td class="leaf">{leaf}</td></tr>'
    )


def _settings(run: Run) -> str:
    if not run.config:
        return ""
    rows = "".join(starmap(_setting, run.config.items()))
    return (
        '<section class="card" id="settings"><h2>Settings</h2>'
        f"<table><tbody>{rows}</tbody></table></section>"
    )


def _setting(name: str, value: Any) -> str:
    return (
        f'<tr><th scope="row">{escape(str(name))}</th>'
        f"<td><code>{escape(str(value))}</code></td></tr>"
    )
