"""``gradstable report``: show one or more recorded runs on one page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradstable._src.cli.reading import read
from gradstable._src.report.page import render
from gradstable._src.report.summary import verdict
from gradstable._src.telemetry.run import Run


@dataclass(frozen=True)
class Options:
    """Make a page of a recorded run, or one that compares several.

    The page is one self-contained file: open it in any browser, online or offline, or send it to
    someone.
    """

    run: tyro.conf.Positional[Path | None] = None
    """A file written by gs.telemetry.Log."""
    compare: tuple[Path, ...] = ()
    """Two or more such files: overlay their curves, and show their numbers side by side."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """Where to write the page; an existing file is overwritten."""
    title: str | None = None
    """The title of the page; by default, the names of the runs."""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable report`` with these arguments; return the exit status."""
    options = tyro.cli(Options, prog="gradstable report", args=list(args))
    paths = options.compare or (() if options.run is None else (options.run,))
    problem = _problem_with(options, paths)
    if problem:
        print(f"gradstable report: {problem}", file=sys.stderr)
        return 2
    try:
        runs = [read(path) for path in paths]
    except ValueError as error:
        print(f"gradstable report: cannot read: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gradstable report: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        options.out.write_text(render(runs, title=options.title), encoding="utf-8")
    except OSError as error:
        print(f"gradstable report: cannot write: {error}", file=sys.stderr)
        return 1
    _tell(runs, options.out)
    return 0


def _problem_with(options: Options, paths: Sequence[Path]) -> str | None:
    """Return what is wrong with the options, if anything."""
    if options.run is not None and options.compare:
        return "pass one file, or several after --compare, but not both"
    if not paths:
        return "pass a file written by gs.telemetry.Log, or several after --compare"
    if len(options.compare) == 1:
        return "--compare needs two or more files; for a single file, leave out --compare"
    if options.out.resolve() in [path.resolve() for path in paths]:
        return f"--out {options.out} would overwrite the run itself"
    return None


def _tell(runs: Sequence[Run], out: Path) -> None:
    for run in runs:
        print(f"{run.name}: {verdict(run).text}")
    print(f"wrote {out} ({out.stat().st_size / 1024:,.0f} KB)")
