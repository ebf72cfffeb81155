"""The charts over the steps of one run: loss, gradient norm and early warnings."""

from collections.abc import Mapping, Sequence

import numpy as np

from gradstable._src.report import table as rows
from gradstable._src.report.chart import Chart, Key, Line, Mark, Panel
from gradstable._src.report.numbers import counted, plain
from gradstable._src.report.table import Table, is_long
from gradstable._src.telemetry.run import Run

STEPS, MEDIANS = "steps", "medians"
_DASH = (5.0, 3.0)


def tables(run: Run) -> dict[str, Table]:
    """Return the tables that the charts of a run read."""
    # The first two have a chart even if it is empty, with marks that say why.
    columns = {
        name: values
        for name, values in columns_of(run).items()
        if name in ("loss", "grad_norm") or np.isfinite(values).any()
    }
    steps = rows.of_steps(run, columns)
    long = {name: columns[name] for name in ("loss", "grad_norm", "rms", "update_ratio")
            if name in columns}  # fmt: skip
    medians = rows.of_medians(run, long, steps)
    return {STEPS: steps} if medians is None else {STEPS: steps, MEDIANS: medians}


def columns_of(run: Run) -> Mapping[str, np.ndarray]:
    """Return what has a curve, by the name of its column."""
    # A step that changed nothing has a ratio of zero, which a logarithmic axis cannot show.
    moved = np.where(run.update_ratio > 0, run.update_ratio, np.nan)
    return {
        "loss": run.loss,
        "grad_norm": run.grad_norm,
        "threshold": run.threshold,
        "update_ratio": moved,
        "rms": run.rms,
        "lr_factor": run.lr_factor,
    }


def loss(run: Run) -> Panel:
    """Return the chart of the loss, with the actions taken."""
    reading = "The loss that was passed to update, one value per step."
    if not run.has_loss:
        label = "No loss was recorded: pass value=loss to update."
        return Panel("loss", "Loss", reading, label)
    marks = [*_verdicts(rows.LOSS_BROKEN), Mark(STEPS, rows.CLIPPED, "ring", "warn", "loss")]
    charts = [Chart("loss", _curve(run.loss, "loss", "loss"), marks, height=250)]
    keys = [*_curve_keys(run.loss, "loss"), *_deeds(run)]
    broken = np.isnan(run.loss) | np.isinf(run.loss)
    if np.any(broken & ~run.rejected):
        keys.append(Key("square", "bad", "loss not finite, step not rejected"))
    if np.any(run.lr_factor[np.isfinite(run.lr_factor)] != 1.0):
        charts.append(_lr_factor(run))
    else:
        reading += " The factor on the learning rate was 1 throughout."
    return Panel("loss", "Loss", reading, _tell(run, run.loss, "Loss"), keys, charts)


def grad_norm(run: Run) -> Panel:
    """Return the chart of the gradient norm and its threshold."""
    reading = (
        "The norm of the raw gradient, before any rule acted, against the norm above which the "
        "guard acts."
    )
    if "grad_norm" not in run.known:
        label = "No gradient norm was recorded."
        return Panel("norm", "Gradient norm", reading, label)
    keys = [*_curve_keys(run.grad_norm, "norm")]
    lines = _curve(run.grad_norm, "grad_norm", "norm")
    if np.isfinite(run.threshold).any():
        keys.append(Key("dash", "ink", "threshold"))
        lines.insert(0, Line(STEPS, "threshold", "threshold", "ink", _DASH, 1.2, limit=True))
    else:
        reading += " There was no finite threshold in this run."
    keys += _deeds(run)
    if np.any(~np.isfinite(run.grad_norm) & ~run.rejected):
        keys.append(Key("square", "bad", "norm not finite, step not rejected"))
    marks = [*_verdicts(rows.NORM_BROKEN), Mark(STEPS, rows.CLIPPED, "ring", "warn", "grad_norm")]
    label = _tell(run, run.grad_norm, "Gradient norm")
    return Panel(
        "norm", "Gradient norm", reading, label, keys, [Chart("norm", lines, marks, height=260)]
    )


def warnings(run: Run) -> Panel:
    """Return the charts of the signals that move before the loss does, with the alarms."""
    title = "Early warnings"
    reading = (
        "RMS_t is the root mean of g²/v, in the leaf where it is largest: about 1 when the second "
        "moment is up to date, and far above 1 when it lags behind. Below it: the norm of the "
        "update relative to that of the parameters."
    )
    known = columns_of(run)
    shown = [
        (name, known[name], text, bit, level)
        for name, text, bit, level in (
            ("rms", "RMS_t", rows.RMS_ALARM, 1.0),
            ("update_ratio", "update / parameters", rows.RATIO_ALARM, None),
        )
        if np.isfinite(known[name]).any()
    ]
    if not shown:
        return Panel(
            "warnings", title, reading, "Neither RMS_t nor the size of updates was recorded."
        )
    alarmed = int(np.count_nonzero(run.alarms > 0))
    keys = [*_curve_keys(shown[0][1], "value")]
    keys += [Key("triangle", "bad", "alarm: far above its usual value")] * bool(alarmed)
    keys += [key for key in _deeds(run) if key.shape != "ring"]
    charts = [
        Chart(
            text,
            _curve(values, name, text),
            [Mark(STEPS, rows.REJECTED, "cross", "bad"), Mark(STEPS, bit, "triangle", "bad", name)],
            height=170,
            level=level,
        )
        for name, values, text, bit, level in shown
    ]
    ranges = [f"{text} {_range(values)}" for _, values, text, _, _ in shown]
    label = f"{'; '.join(ranges)}; {counted(alarmed, 'step')} with an alarm."
    return Panel("warnings", title, reading, label, keys, charts)


def _lr_factor(run: Run) -> Chart:
    highest = max(1.0, float(np.nanmax(run.lr_factor)))
    line = Line(STEPS, "lr_factor", "factor", "good", width=1.6, stepped=True)
    name = "factor on the learning rate"
    return Chart(name, [line], height=100, log=False, ends=(0.0, 1.1 * highest))


def _curve(values: np.ndarray, column: str, label: str) -> list[Line]:
    if not is_long(values):
        return [Line(STEPS, column, label)]
    return [
        Line(STEPS, column, label, width=0.8, faint=True),
        Line(MEDIANS, column, label, width=1.8, quiet=True),
    ]


def _verdicts(broken: int) -> Sequence[Mark]:
    return (Mark(STEPS, rows.REJECTED, "cross", "bad"), Mark(STEPS, broken, "square", "bad"))


def _curve_keys(values: np.ndarray, name: str) -> list[Key]:
    if is_long(values):
        return [Key("line", "main", f"{name}, median"), Key("thin", "main", "every step")]
    return [Key("line", "main", name)]


def _deeds(run: Run) -> list[Key]:
    keys = []
    if run.rejected.any():
        keys.append(Key("cross", "bad", "rejected"))
    if run.clipped.any():
        keys.append(Key("ring", "warn", "clipped"))
    if run.rollbacks:
        keys.append(Key("upright", "note", "rollback"))
    if run.lost:
        keys.append(Key("hatch", "soft", "not recorded"))
    return keys


def _tell(run: Run, values: np.ndarray, name: str) -> str:
    text = f"{name} of {counted(len(run.step), 'step')}, {_range(values)}"
    return (
        f"{text}; {counted(int(run.rejected.sum()), 'step')} rejected, "
        f"{int(run.clipped.sum())} clipped."
    )


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "never finite"
    ends = f"from {plain(finite[0])} to {plain(finite[-1])}"
    return f"{ends}, at most {plain(float(finite.max()))}"
