"""``gradstable demo``: five training runs, their results, and a report that compares them."""

import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from gradstable._src.cli.demo.faults import Fault, bad_steps, planted
from gradstable._src.cli.demo.train import CONTESTANTS, Contestant, Result, train
from gradstable._src.cli.options import Parser
from gradstable._src.report.page import render
from gradstable._src.telemetry.run import Run, read_run

_MAX_SEED = 2**32 - 1  # the range that scikit-learn and JAX both accept
_PLAIN_WIDTH = 120  # so that tables do not wrap if the width is unknown


_WRITTEN, _FAILED, _REFUSED = 0, 1, 2
_TEXT = """\
Train a small network through a storm of bad batches, with and without the guard.

A convolutional network learns handwritten digits (they come with scikit-learn), and some batches \
are bad: a sensor with the wrong gain at step 20, later a NaN pixel, wrong labels with huge \
weights, and a dead sensor. Bare AdamW, AdamW behind clip_by_global_norm and apply_if_finite, and \
guarded AdamW all see the same batches. It takes less than two minutes on two cores."""
_EXITS = {
    _WRITTEN: "all contestants were trained, and the page was written",
    _FAILED: "a file cannot be written",
    _REFUSED: "the options are wrong, or nothing can be written to the folder",
}


def main(args: Sequence[str]) -> int:
    """Run ``gradstable demo`` with these arguments; return the exit status."""
    parser = Parser("demo", _TEXT, exits=_EXITS)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed for the data split, the order of batches, and the initial parameters; default 0",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=500,
        metavar="N",
        help="number of steps to train each contestant, 500 by default; faults beyond the end are "
        "not planted",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gradstable-demo"),
        metavar="FOLDER",
        help="folder for demo.html and a record of each run, gradstable-demo by default; only "
        "these files are overwritten",
    )
    options = parser.parse(args)
    problem = _problem_with(options)
    if problem:
        parser.error(problem)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    faults = planted(options.steps)
    try:
        results = _train_all(options, faults, console)
        runs = {name: read_run(result.file) for name, result in results.items()}
        page = options.out / "demo.html"
        text = render(list(runs.values()), title="Bad batches, with and without a guard")
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        where = error.filename or options.out
        print(f"gradstable demo: cannot write {where}: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    console.print(_table(results, runs))
    for line in (results["guard"].explanation or "", "", *_conclusions(results, runs, faults)):
        console.print(line, markup=False, soft_wrap=True)
    # Not through the console, which would wrap a path.
    print(f"\nwrote {page}, and a record of each run next to it")
    return _WRITTEN


def _problem_with(options: Any) -> str | None:
    """Return what is wrong with the options; tries the folder before any work is done."""
    if options.steps < 1:
        return f"--steps must be at least 1, got {options.steps}"
    if not 0 <= options.seed <= _MAX_SEED:
        return f"--seed must be between 0 and {_MAX_SEED}, got {options.seed}"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        return f"cannot write to --out {options.out}: {error.strerror or error}"
    return None


def _train_all(options: Any, faults: Sequence[Fault], console: Console) -> dict[str, Result]:
    columns = TextColumn(f"{{task.description:{_widest()}}}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console) as progress:
        return {
            one.name: train(
                one,
                options.out / f"{_file_name(one)}.jsonl",
                seed=options.seed,
                steps=options.steps,
                faults=faults,
                progress=progress,
            )
            for one in CONTESTANTS
        }


def _widest() -> int:
    return max(len(one.name) for one in CONTESTANTS)


def _file_name(contestant: Contestant) -> str:
    return re.sub(r"\W+", "_", contestant.name)


def _table(results: dict[str, Result], runs: dict[str, Run]) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("test accuracy", "rejected", "clipped"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        run = runs[name]
        acts = [run.rejected.sum(), run.clipped.sum()]
        # A bare optimizer does not judge steps, which a zero would suggest.
        counts = [str(count) for count in acts] if result.explanation else ["-", "-"]
        table.add_row(name, _percent(result.accuracy), *counts)
    return table


def _conclusions(
    results: dict[str, Result], runs: dict[str, Run], faults: Sequence[Fault]
) -> list[str]:
    """Return the conclusions, in sentences built from the numbers."""
    bad = set(bad_steps(faults))
    rejected = {int(step) for step in runs["guard"].step[runs["guard"].rejected]}
    which = f"step{'s' * (len(rejected) > 1)} {spans(rejected)}" if rejected else "no step"
    which += ": exactly the bad ones" if rejected == bad != set() else ""
    accuracy = {name: _percent(result.accuracy) for name, result in results.items()}
    calm = runs["guard, no faults"]
    touched = int((calm.rejected | calm.clipped).sum())
    return [
        *(f"step {spans(fault.steps)}: {fault.text}" for fault in faults),
        f"The guard rejected {which}. It ended at "
        f"{accuracy['guard']} test accuracy; bare AdamW without any fault ends at "
        f"{accuracy['adamw, no faults']}.",
        f"Through the faults, bare AdamW ended at {accuracy['adamw']}, behind a clip and "
        f"apply_if_finite at {accuracy['clip + apply_if_finite']}.",
        f"Without any fault, the guard touched {touched} of {len(calm.step)} steps.",
    ]


def spans(steps: Iterable[int]) -> str:
    """Return step numbers as text, with consecutive ones joined: ``20, 220-223``."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
