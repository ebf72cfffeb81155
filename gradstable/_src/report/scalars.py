"""The numbers that the training loop reported: a small chart each, and a table."""

from html import escape

import numpy as np

from gradstable._src.report.chart import Chart, Line, Panel
from gradstable._src.report.numbers import counted
from gradstable._src.report.table import Table, of_column
from gradstable._src.telemetry.run import Run

MOST_SCALARS = 24
_ROWS = 600
# A positive number that spans this factor is shown on a logarithmic axis at first.
_SPAN = 30.0


def scalars(run: Run) -> tuple[Panel | None, dict[str, Table]]:
    """Return the charts of what the loop reported, with their tables."""
    known = [name for name, one in run.scalars.items() if np.isfinite(one.value).any()]
    if not known:
        return None, {}
    tables, charts = {}, []
    for place, name in enumerate(known[:MOST_SCALARS]):
        step, value = run.scalars[name]
        key = f"scalar-{place}"
        tables[key] = of_column(step, {"value": value}, most=_ROWS)
        charts.append(Chart(name, [Line(key, "value", name)], height=150, log=spans_decades(value)))
    reading = "What the training loop passed to the log besides the loss."
    if len(known) > MOST_SCALARS:
        reading += f" The first {MOST_SCALARS} of {len(known)} have a chart."
    label = f"{counted(len(known), 'number')} over the steps: {', '.join(known)}."
    panel = Panel(
        "scalars", "Your numbers", reading, label, (), charts, more=_table(run, known), grid=True
    )
    return panel, tables


def spans_decades(*values: np.ndarray) -> bool:
    """Return whether these positive numbers are better seen on a logarithmic axis."""
    every = np.concatenate(values)
    finite = every[np.isfinite(every)]
    return bool(finite.size and finite.min() > 0 and finite.max() > _SPAN * finite.min())


def _table(run: Run, known: list[str]) -> str:
    rows = []
    for name in known:
        value = run.scalars[name].value
        finite = value[np.isfinite(value)]
        numbers = (finite[0], finite[-1], finite.min(), finite.max())
        cells = "".join(f'<td class="number">{number:.6g}</td>' for number in numbers)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    names = "".join(
        f'<th scope="col" class="number">{name}</th>' for name in ("first", "last", "least", "most")
    )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">name</th>'
        f"{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
