"""The picture: loss, test accuracy, and the gradient norm against the guard's threshold."""

import io
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradstable._src.cli.demo.outcome import Outcome
from gradstable._src.cli.demo.race import Race


class _Look(NamedTuple):
    color: str
    width: float
    style: Literal["-", "--", ":"]


class _Theme(NamedTuple):
    ink: str
    faint: str
    paper: str
    band: str
    looks: dict[str, _Look]


# Colors of Okabe and Ito, told apart by people who see colors differently; styles differ too.
_LIGHT = _Theme(
    ink="#222222",
    faint="#dddddd",
    paper="#ffffff",
    band="#f3dfa8",
    looks={
        "adamw_clean": _Look("#b5b5b5", 4.0, "-"),
        "adamw": _Look("#d55e00", 1.4, "-"),
        "clip_finite": _Look("#8a5a83", 1.4, "--"),
        "guard": _Look("#0072b2", 1.4, "-"),
    },
)
_DARK = _Theme(
    ink="#e6e6e6",
    faint="#3c3f44",
    paper="#16181c",
    band="#4d431f",
    looks={
        "adamw_clean": _Look("#6f747c", 4.0, "-"),
        "adamw": _Look("#ff8a3d", 1.4, "-"),
        "clip_finite": _Look("#e0a3cf", 1.4, "--"),
        "guard": _Look("#56b4e9", 1.4, "-"),
    },
)
# Where NaN is marked, in parts of the height of a panel: one line a contestant.
_TOP, _STEP_DOWN = 0.95, 0.06
_HEADROOM = 0.28  # of the height, kept free above the curves for these marks
_MIN_BAND = 0.006  # of the width, or a single bad step could not be seen


def to_png(race: Race) -> bytes:
    """Return the picture on white, for anywhere."""
    return _save(_draw(race, theme=_LIGHT), file_format="png", theme=_LIGHT)


def to_svg(race: Race, *, dark: bool) -> bytes:
    """Return the picture in vectors, for a light or a dark page."""
    theme = _DARK if dark else _LIGHT
    svg = _save(_draw(race, theme=theme), file_format="svg", theme=theme)
    return svg[svg.index(b"<svg") :]  # what stands before names a file on the network


def _save(figure: Figure, *, file_format: str, theme: _Theme) -> bytes:
    buffer = io.BytesIO()
    # Neither a date nor random names inside: the same race gives the same file.
    fields = ("Date", "Creator", "Format", "Type") if file_format == "svg" else ("Software",)
    metadata = dict.fromkeys(fields)
    with mpl.rc_context({"svg.hashsalt": "gradstable", "svg.fonttype": "path"}):
        figure.savefig(
            buffer, format=file_format, dpi=150, facecolor=theme.paper, metadata=metadata
        )
    return buffer.getvalue()


def _draw(race: Race, *, theme: _Theme) -> Figure:
    settings: dict[Any, Any] = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.ink,
        "axes.facecolor": theme.paper,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "font.size": 10,
        "legend.frameon": False,
    }
    # No pyplot: it would choose a window system, and remember every figure.
    with mpl.rc_context(settings):
        figure = Figure(figsize=(10, 9.5), layout="constrained")
        loss, accuracy, norm = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [1.15, 0.85, 1]}
        )
        for axes in (loss, accuracy, norm):
            _mark_faults(axes, race, theme=theme)
        _draw_loss(loss, race, theme=theme)
        _draw_accuracy(accuracy, race, theme=theme)
        _draw_norm(norm, race, theme=theme)
        _name_faults(loss, race)
        norm.set_xlabel("step")
        norm.set_xlim(0, race.steps + 1)
        norm.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(handles=_handles(race, theme), loc="outside upper left", ncols=4)
    return figure


def _draw_loss(axes: Axes, race: Race, *, theme: _Theme) -> None:
    axes.set_yscale("log")
    axes.set_ylabel("loss of the batch")
    for row, (key, look) in enumerate(theme.looks.items()):
        series = race.outcomes[key].series["loss"]
        _line(axes, series, look)
        _mark_nan(axes, series, look, row=row)
    _leave_headroom(axes, [race.outcomes[key].series["loss"] for key in theme.looks])


def _draw_accuracy(axes: Axes, race: Race, *, theme: _Theme) -> None:
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 104)
    for key, look in theme.looks.items():
        evaluations = race.outcomes[key].evaluations
        axes.plot(
            [one.step for one in evaluations],
            [100 * one.accuracy for one in evaluations],
            color=look.color,
            linewidth=look.width,
            linestyle=look.style,
        )


def _draw_norm(axes: Axes, race: Race, *, theme: _Theme) -> None:
    guard, look = race.outcomes["guard"], theme.looks["guard"]
    norms = guard.series["grad_norm"]
    axes.set_yscale("log")
    axes.set_ylabel("gradient norm, guarded run")
    _line(axes, norms, look)
    _line(axes, guard.series["threshold"], _Look(theme.ink, 1.2, ":"))
    _mark_nan(axes, norms, _Look(theme.ink, 1.4, "-"), row=0)
    _mark_acts(axes, guard, theme=theme)
    _leave_headroom(axes, [norms])
    handles = [
        Line2D([], [], color=look.color, linewidth=look.width, label="gradient norm"),
        Line2D([], [], color=theme.ink, linestyle=":", label="threshold: clipped above it"),
        Line2D([], [], color=theme.ink, marker="x", linestyle="", label="rejected"),
    ]
    if guard.clipped:
        handles.append(
            Line2D([], [], color=theme.ink, marker="o", mfc="none", linestyle="", label="clipped")
        )
    axes.legend(handles=handles, loc="center right", bbox_to_anchor=(1.0, 0.55), fontsize=9)


def _line(axes: Axes, values: np.ndarray, look: _Look) -> None:
    # What is not a positive number becomes a gap.
    shown = np.where(np.isfinite(values) & (values > 0), values.astype(np.float64), np.nan)
    axes.plot(
        np.arange(1, len(shown) + 1),
        shown,
        color=look.color,
        linewidth=look.width,
        linestyle=look.style,
        # A point between two gaps would be no line at all.
        marker="." if np.count_nonzero(np.isfinite(shown)) < 3 else "",
    )


def _mark_nan(axes: Axes, values: np.ndarray, look: _Look, *, row: int) -> None:
    """Mark stretches without a number at the top: a cross where one begins, a line to its end."""
    bad = np.concatenate([[False], ~np.isfinite(values), [False]])
    begins = np.flatnonzero(bad[1:] & ~bad[:-1]) + 1
    ends = np.flatnonzero(~bad[1:] & bad[:-1])
    height = _TOP - row * _STEP_DOWN
    for begin, end in zip(begins, ends, strict=True):
        axes.plot(
            [begin, end],
            [height, height],
            transform=axes.get_xaxis_transform(),
            color=look.color,
            linewidth=1.4,
            marker="x",
            markevery=[0],
        )
    for begin in begins[:1]:
        axes.annotate(
            "NaN",
            (begin, height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-7, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=look.color,
        )


def _mark_acts(axes: Axes, guard: Outcome, *, theme: _Theme) -> None:
    for acts, marker in ((guard.rejected, "x"), (guard.clipped, "o")):
        shown = [act for act in acts if np.isfinite(act.grad_norm)]
        axes.plot(
            [act.step for act in shown],
            [act.grad_norm for act in shown],
            linestyle="",
            marker=marker,
            color=theme.ink,
            markerfacecolor="none",
            zorder=3,
        )


def _leave_headroom(axes: Axes, series: list[np.ndarray]) -> None:
    values = np.concatenate(series)
    values = np.log(values[np.isfinite(values) & (values > 0)].astype(np.float64))
    if values.size:
        low, high = values.min(), max(values.max(), values.min() + 1.0)
        span = high - low
        axes.set_ylim(np.exp(low - 0.1 * span), np.exp(low + span / (1.0 - _HEADROOM)))


def _mark_faults(axes: Axes, race: Race, *, theme: _Theme) -> None:
    least = _MIN_BAND * race.steps
    for fault in race.faults:
        middle = (fault.first + fault.last) / 2
        half = max(len(fault.steps), least) / 2
        axes.axvspan(middle - half, middle + half, color=theme.band, linewidth=0, zorder=0)


def _name_faults(axes: Axes, race: Race) -> None:
    for fault in race.faults:
        axes.annotate(
            fault.name,
            ((fault.first + fault.last) / 2, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )


def _handles(race: Race, theme: _Theme) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=look.color,
            linewidth=look.width,
            linestyle=look.style,
            label=race.outcomes[key].contestant.name,
        )
        for key, look in theme.looks.items()
    ]
