"""The picture on the front page of the documentation: the runs of ``gradstable demo``.

Run ``python -m benchmarks.storm_picture``; it trains for a minute or two, and writes
``docs/_static/storm_light.svg`` and ``storm_dark.svg``. With ``--runs demo-out`` it draws what
``make demo`` has recorded.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from gradstable._src.cli.demo.faults import STORM
from gradstable.cli import main as gradstable_command
from gradstable.telemetry import Run, read_run

FOLDER = Path(__file__).parents[1] / "docs" / "_static"
WINDOW = 9  # steps of a running median
# What is wrong with the bad batches of the demo, in two words each.
FAULTS = ("too bright", "NaN pixel", "wrong labels", "dead sensor")


class Line(NamedTuple):
    """A run in the picture."""

    file: str
    label: str
    color: str


class Theme(NamedTuple):
    """Colors that fit the page in its light or dark theme; the background is the page's own."""

    text: str
    calm: str
    storm: str


LINES = (
    Line("adamw", "AdamW", "#d62728"),
    Line("clip_apply_if_finite", "AdamW, clip + apply_if_finite", "#e69f00"),
    Line("guard", "gs.guard(AdamW)", "#1f8fff"),
)
THEMES = {
    "light": Theme(text="#333333", calm="#d0d0d0", storm="#8080801c"),
    "dark": Theme(text="#cccccc", calm="#505050", storm="#ffffff1c"),
}


def median(values: np.ndarray) -> np.ndarray:
    """Return the running median, which a bad batch or two do not move."""
    padded = np.pad(values, WINDOW // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=-1)


def draw(runs: dict[str, Run], theme: Theme) -> Figure:
    """Draw the losses of all runs over the same steps."""
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    ax = figure.subplots()
    for fault, what in zip(STORM, FAULTS, strict=True):
        ax.axvspan(fault.first - 1.5, fault.last + 1.5, color=theme.storm, linewidth=0)
        ax.text(fault.last + 5, 4.2, what, color=theme.text, fontsize=10, va="center")
    calm = runs["adamw_no_faults"]
    ax.plot(calm.step, median(calm.loss), color=theme.calm, linewidth=6, label="no bad batch")
    for line in LINES:
        run = runs[line.file]
        end = np.flatnonzero(np.isfinite(run.loss))[-1] + 1
        loss = median(run.loss[:end])
        ax.plot(run.step[:end], loss, color=line.color, linewidth=2.2, label=line.label)
        if end < run.loss.size:
            at, offset = (run.step[end - 1], loss[-1]), (10, 14)
            ax.plot(*at, marker="x", color=line.color, markersize=10, markeredgewidth=2.5)
            ax.annotate("NaN from here on", at, offset, textcoords="offset points",
                        color=line.color, fontsize=10, weight="bold")  # fmt: skip
    ax.set(yscale="log", xlabel="step", ylabel="loss", ylim=(0.5, 5), xlim=(1, 500))
    ax.yaxis.set_major_locator(matplotlib.ticker.FixedLocator([0.5, 1, 2, 4]))
    ax.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    ax.tick_params(colors=theme.text, length=0)
    ax.xaxis.label.set_color(theme.text)
    ax.yaxis.label.set_color(theme.text)
    ax.spines[:].set_visible(False)
    ax.legend(frameon=False, labelcolor=theme.text, fontsize=9.5, handlelength=1.2, borderpad=0,
              loc="upper right", bbox_to_anchor=(1, 0.87))  # fmt: skip
    return figure


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder with the records of a demo")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the pictures")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.runs or Path(scratch)
        if options.runs is None and gradstable_command(["demo", "--out", scratch]) != 0:
            raise SystemExit(1)
        names = [*(line.file for line in LINES), "adamw_no_faults"]
        runs = {name: read_run(folder / f"{name}.jsonl") for name in names}
    for name, theme in THEMES.items():
        # The same run gives the same file: no date, and no random names inside.
        with mpl.rc_context({"svg.hashsalt": name, "font.family": "DejaVu Sans"}):
            file = options.out / f"storm_{name}.svg"
            draw(runs, theme).savefig(file, transparent=True, metadata={"Date": None})
        print(f"wrote {file} ({file.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
