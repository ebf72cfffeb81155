"""``gradstable gauntlet``: the options, the progress, and the output files."""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import gradstable
from gradstable._src.cli.options import Parser
from gradstable_gauntlet.cell import Plan
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.entries import FAIR_TASKS, Entries, choose, entries, storms_for, with_bases
from gradstable_gauntlet.listing import listing
from gradstable_gauntlet.markdown import to_markdown
from gradstable_gauntlet.measures import CLEAN
from gradstable_gauntlet.page import to_html
from gradstable_gauntlet.race import Job, run_jobs
from gradstable_gauntlet.results import Cell, Results, write
from gradstable_gauntlet.storms import STORMS
from gradstable_gauntlet.tables import duration

PROG = "gradstable gauntlet"

# A part of the whole with the same seeds, rates and steps, so that all numbers are comparable.
QUICK_TASKS = ("deep_mlp", "lm_markov")
QUICK_CONTESTANTS = ("adamw", "clip", "apply_if_finite", "zclip", "gs.guard(adamw)")
QUICK_STORMS = ("none", "batch x 1e6, 10%", "batch x nan, 1%", "loss x 30 for good", "rate x 100")
# The default rule and stable_adamw may be tuned on these; the other tasks are reported.
TUNING_TASKS = (
    "digits_cnn", "lm_topics", "relu_rnn", "lstm", "heavy_tails", "sines", "two_heads",
    "sparse_reward", "policy",
)  # fmt: skip


_WRITTEN, _FAILED, _REFUSED = 0, 1, 2
_TEXT = """\
Send optimizers through every storm, on small real models, and see which survive.

Writes results.json, results.md and index.html. Finished parts are not run again: you can stop it \
at any time and call it again.

Several names follow one another, or are joined by commas; --list shows how to write them."""
_EXITS = {
    _WRITTEN: "the results were written, whatever they are",
    _FAILED: "the results cannot be written",
    _REFUSED: "a name or a file cannot be found, or the options are wrong",
}


def _parser() -> Parser:
    parser = Parser("gauntlet", _TEXT, exits=_EXITS)

    def add(*names: str, **how: Any) -> None:
        parser.add_argument(*names, **how)

    several: dict[str, Any] = {"nargs": "+", "default": (), "metavar": "NAME"}
    add(
        "--quick",
        action="store_true",
        help="five contestants, two tasks, five storms: less than five minutes on two cores",
    )
    add(
        "--full",
        action="store_true",
        help="everything; takes hours. If you choose nothing by name, the default is --quick",
    )
    add("--tasks", **several, help="only these tasks")
    add("--contestants", **several, help="only these contestants")
    add("--storms", **several, help="only these storms")
    add(
        "--bring",
        nargs="+",
        default=(),
        type=Path,
        metavar="FILE",
        help="Python files with your own CONTESTANTS, TASKS or STORMS, which take part",
    )
    add(
        "--seeds",
        type=int,
        default=len(Plan().seeds),
        metavar="N",
        help="number of runs of every storm, 5 by default",
    )
    add(
        "-j",
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="number of cells to run at a time; by default, one for each core",
    )
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("gauntlet-out"),
        metavar="FOLDER",
        help="folder to write to, gauntlet-out by default",
    )
    add(
        "--fresh",
        action="store_true",
        help="run finished parts again; they may come from other code",
    )
    add("--list", action="store_true", help="list all choices, and run nothing")
    return parser


def main(args: Sequence[str]) -> int:
    """Run the gauntlet with these arguments; return the exit status."""
    parser = _parser()
    options = parser.parse(args)
    console = Console()
    for name in ("seeds", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    try:
        known = entries(options.bring)
        chosen = _chosen(options, known)
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        print(listing(known))
        return _WRITTEN
    try:
        _run(options, args, chosen, console)
    except OSError as error:
        where = error.filename or options.out
        print(f"{PROG}: cannot write {where}: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    return _WRITTEN


def _run(options: Any, args: Sequence[str], chosen: Entries, console: Console) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    cells_folder = options.out / "cells"
    if options.fresh:
        shutil.rmtree(cells_folder, ignore_errors=True)
    plan = Plan(seeds=tuple(range(100, 100 + options.seeds)))
    jobs = [
        Job(task, contestant, tuple(chosen.storms), tuple(options.bring), plan)
        for task in chosen.tasks
        for contestant in chosen.contestants
    ]
    cells = _run_with_progress(jobs, cells_folder, options.processes, console)
    made = _made(shlex.join([*PROG.split(), *args]), cells, options.processes)
    results = _results(chosen, plan, cells, made)
    write(results, options.out / "results.json")
    (options.out / "results.md").write_text(to_markdown(results), encoding="utf-8")
    (options.out / "index.html").write_text(to_html(results), encoding="utf-8")
    console.print(f"wrote {options.out}/results.json, results.md and index.html")


def _chosen(options: Any, known: Entries) -> Entries:
    """Return what to run: the named entries; otherwise all of them, or the quick part."""
    if options.quick and options.full:
        msg = "--quick and --full cannot be combined"
        raise ValueError(msg)
    named = options.tasks, options.contestants, options.storms
    quick = options.quick or not (options.full or any(named))
    brought = tuple(name for name in known.contestants if name not in CONTESTANTS)

    def some(kind: str, given: Sequence[str], few: tuple[str, ...], every: Any) -> Any:
        return choose(kind, given or (few if quick else every), every)

    return Entries(
        tasks=some("task", options.tasks, QUICK_TASKS, known.tasks),
        contestants=with_bases(
            some("contestant", options.contestants, QUICK_CONTESTANTS + brought, known.contestants)
        ),
        storms=some("storm", options.storms, QUICK_STORMS, known.storms),
    )


def _run_with_progress(
    jobs: Sequence[Job], folder: Path, processes: int, console: Console
) -> list[Cell]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    cells: dict[tuple[str, str], Cell] = {}
    with Progress(*columns, console=console, speed_estimate_period=600.0) as progress:
        shown = progress.add_task("cells", total=len(jobs))
        for job, cell in run_jobs(jobs, folder, processes=processes):
            cells[job.task, job.contestant] = cell
            name = f"{job.contestant} in {job.task}"
            progress.update(shown, advance=1, description=name)
            if not console.is_terminal:
                console.print(f"{len(cells)}/{len(jobs)} {name}: {cell.seconds:.0f} s")
    return [cells[job.task, job.contestant] for job in jobs]


def _made(command: str, cells: Sequence[Cell], processes: int) -> dict[str, Any]:
    busy = duration(sum(cell.seconds for cell in cells))
    return {
        "command": command,
        "took": f"{busy} in all processes together, {processes} at a time",
        "gradstable": gradstable.__version__,
        "jax": jax.__version__,
        "optax": optax.__version__,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
    }


def _results(chosen: Entries, plan: Plan, cells: Sequence[Cell], made: dict[str, Any]) -> Results:
    tasks = {}
    for name, make in chosen.tasks.items():
        task = make()
        tasks[name] = {
            "about": task.about,
            "steps": task.steps,
            "tuning": name in TUNING_TASKS,
            "fair": name in FAIR_TASKS,
        }
    ran = {name for task in chosen.tasks for name in storms_for(task, chosen.storms)}
    storms = {
        name: {"about": storm.about, "group": storm.group}
        for name, storm in {CLEAN: STORMS[CLEAN], **chosen.storms}.items()
        if name in ran
    }
    contestants = {
        name: {"about": one.about, "base": one.base, "ours": one.ours}
        for name, one in chosen.contestants.items()
    }
    return Results(made, tasks, contestants, storms, plan.rates, cells)
