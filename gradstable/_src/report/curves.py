"""The charts over the steps of one run: loss, gradient norm and early warnings."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradstable._src.report.binning import envelope
from gradstable._src.report.frame import (
    LARGEST,
    Size,
    Span,
    curve,
    figure,
    is_long,
    mark_at,
    mark_rollbacks,
    mark_top,
    name_axes,
    over_steps,
    plain,
    scale,
)
from gradstable._src.report.panel import Key, Panel
from gradstable._src.report.summary import counted
from gradstable._src.report.theme import color
from gradstable._src.telemetry.fields import Alarm
from gradstable._src.telemetry.run import Run

# A threshold more than this far above all norms, as while it still learns, is not shown.
_MOST_ABOVE = 100.0


def loss(run: Run) -> Panel:
    """Return the chart of the loss, with the actions taken."""
    reading = "The loss that was passed to update, one value per step."
    if not run.has_loss:
        label = "No loss was recorded: pass value=loss to update."
        return Panel("loss", "Loss", reading, label, (), None)
    lowered = _lowered(run)
    broken = np.isnan(run.loss) | np.isinf(run.loss)
    keys = [*_curve_keys(run.loss, "loss"), *_deeds(run)]
    if np.any(broken & ~run.rejected):
        keys.append(Key("square", "bad", "loss not finite, step not rejected"))
    if not lowered:
        reading += " The factor on the learning rate was 1 throughout."

    def draw(size: Size) -> Figure:
        drawn, axes = figure(size, (230, 60) if lowered else (250,))
        over_steps(axes[0], Span.of([run]), size, lost=run.lost, last=not lowered)
        calm = run.loss[~run.rejected]
        log = scale(axes[0], calm if np.isfinite(calm).any() else run.loss)
        name_axes(axes[0], "loss, logarithmic" if log else "loss")
        mark_rollbacks(axes[0], run)
        curve(axes[0], run, run.loss, size, many=is_long(run.loss))
        where = run.clipped
        mark_at(axes[0], run.step[where], run.loss[where], marker="o", tone="warn", size=size)
        _mark_top(axes[0], run, broken=broken, size=size)
        if lowered:
            _draw_lr_factor(axes[1], run, size)
        return drawn

    return Panel("loss", "Loss", reading, _tell(run, run.loss, "Loss"), keys, draw)


def grad_norm(run: Run) -> Panel:
    """Return the chart of the gradient norm and its threshold."""
    reading = (
        "The norm of the raw gradient, before any rule acted, against the norm above which the "
        "guard acts."
    )
    if "grad_norm" not in run.known:
        label = "No gradient norm was recorded."
        return Panel("norm", "Gradient norm", reading, label, (), None)
    judged = bool(np.isfinite(run.threshold).any())
    broken = ~np.isfinite(run.grad_norm)
    keys = [*_curve_keys(run.grad_norm, "norm")]
    if judged:
        keys.append(Key("dash", "ink", "threshold"))
    else:
        reading += " There was no finite threshold in this run."
    keys += _deeds(run)
    if np.any(broken & ~run.rejected):
        keys.append(Key("square", "bad", "norm not finite, step not rejected"))

    def draw(size: Size) -> Figure:
        drawn, (axes,) = figure(size, (260,))
        over_steps(axes, Span.of([run]), size, lost=run.lost)
        scale(axes, _shown_norms(run))
        name_axes(axes, "norm, logarithmic")
        mark_rollbacks(axes, run)
        x, y = envelope(run.step, run.threshold, bins=size.bins, lost=run.lost)
        axes.plot(x, y, color=color("ink"), linewidth=1.2, linestyle=(0, (4, 2.5)))
        curve(axes, run, run.grad_norm, size, many=is_long(run.grad_norm))
        where = run.clipped
        mark_at(axes, run.step[where], run.grad_norm[where], marker="o", tone="warn", size=size)
        _mark_top(axes, run, broken=broken, size=size)
        return drawn

    label = _tell(run, run.grad_norm, "Gradient norm")
    return Panel("norm", "Gradient norm", reading, label, keys, draw)


def warnings(run: Run) -> Panel:
    """Return the chart of the signals that move before the loss does, with the alarms."""
    title = "Early warnings"
    reading = (
        "RMS_t is the root mean of g²/v, in the leaf where it is largest: about 1 when the second "
        "moment is up to date, and far above 1 when it lags behind. Below it: the norm of the "
        "update relative to that of the parameters."
    )
    # A step that changed nothing has a ratio of zero, which a logarithmic axis cannot show.
    moved = np.where(run.update_ratio > 0, run.update_ratio, np.nan)
    rows = [
        ("rms", run.rms, "RMS_t, logarithmic", Alarm.RMS),
        ("update_ratio", moved, "update / parameters, logarithmic", Alarm.UPDATE_RATIO),
    ]
    rows = [row for row in rows if np.isfinite(row[1]).any()]
    if not rows:
        label = "Neither RMS_t nor the size of updates was recorded."
        return Panel("warnings", title, reading, label, (), None)
    alarmed = int(np.count_nonzero(run.alarms > 0))
    keys = [*_curve_keys(rows[0][1], "value")]
    keys += [Key("triangle", "bad", "alarm: far above its usual value")] * bool(alarmed)
    keys += [key for key in _deeds(run) if key.shape != "ring"]

    def draw(size: Size) -> Figure:
        drawn, every = figure(size, [150] * len(rows))
        for axes, (name, values, text, alarm) in zip(every, rows, strict=True):
            over_steps(axes, Span.of([run]), size, lost=run.lost, last=axes is every[-1])
            calm = values[~run.rejected]
            scale(axes, calm if np.isfinite(calm).any() else values)
            name_axes(axes, text)
            if name == "rms":
                axes.axhline(1.0, color=color("soft"), linewidth=1.0, linestyle=(0, (1, 2)))
            mark_rollbacks(axes, run)
            curve(axes, run, values, size, many=is_long(rows[0][1]))
            mark_top(axes, run.step[run.rejected], marker="x", tone="bad", size=size)
            on = (run.alarms > 0) & (run.alarms & alarm > 0)
            mark_at(axes, run.step[on], values[on], marker="^", tone="bad", size=size)
        return drawn

    ranges = [f"{text.split(',')[0]} {_range(values)}" for _, values, text, _ in rows]
    label = f"{'; '.join(ranges)}; {counted(alarmed, 'step')} with an alarm."
    return Panel("warnings", title, reading, label, keys, draw)


def _draw_lr_factor(axes: Axes, run: Run, size: Size) -> None:
    over_steps(axes, Span.of([run]), size, lost=run.lost)
    name_axes(axes, "factor on the learning rate")
    x, y = envelope(run.step, run.lr_factor, bins=size.bins, lost=run.lost)
    axes.set_ylim(0, 1.1 * max(1.0, np.nanmax(y)))
    axes.set_yticks([0, 0.5, 1])
    axes.plot(x, y, color=color("good"), linewidth=1.6, drawstyle="steps-post")
    mark_rollbacks(axes, run)


def _mark_top(axes: Axes, run: Run, *, broken: np.ndarray, size: Size) -> None:
    mark_top(axes, run.step[run.rejected], marker="x", tone="bad", size=size)
    mark_top(axes, run.step[broken & ~run.rejected], marker="s", tone="bad", size=size)


def _shown_norms(run: Run) -> np.ndarray:
    """Return what the axis of norms must cover: accepted norms if there are any, and thresholds."""
    norms = run.grad_norm[~run.rejected & np.isfinite(run.grad_norm)]
    if not norms.size:
        norms = run.grad_norm
    finite = norms[np.isfinite(norms)]
    limit = _MOST_ABOVE * min(finite.max(), LARGEST) if finite.size else np.inf
    return np.concatenate([norms, run.threshold[run.threshold <= limit]])


def _lowered(run: Run) -> bool:
    known = run.lr_factor[np.isfinite(run.lr_factor)]
    return bool(np.any(known != 1.0))


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
