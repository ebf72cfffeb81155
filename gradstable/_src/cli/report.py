"""``gradstable report``: show one or more recorded runs on one page."""

import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradstable._src.cli.follow import CannotWriteError, follow, write
from gradstable._src.cli.options import Parser
from gradstable._src.cli.reading import read
from gradstable._src.report.page import render
from gradstable._src.report.summary import verdict
from gradstable._src.telemetry.run import Run

_WRITTEN, _FAILED, _REFUSED = 0, 1, 2
_SECONDS = 5.0
_TEXT = """\
Make a page of a recorded run, or one that compares several.

The page is one self-contained file: open it in any browser, online or offline, or send it to \
someone. With --watch, it is rewritten while the runs go on, and reloads itself."""
_EXITS = {
    _WRITTEN: "the page was written, whatever is on it",
    _FAILED: "a file is not a record of a run, or the page cannot be written",
    _REFUSED: "a file cannot be opened, or the options are wrong",
}


def main(args: Sequence[str]) -> int:
    """Run ``gradstable report`` with these arguments; return the exit status."""
    parser = Parser("report", _TEXT, exits=_EXITS)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="a file written by gs.telemetry.Log"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        type=Path,
        metavar="RUN",
        help="two or more such files: overlay their curves, and show their numbers side by side",
    )
    parser.add_argument(
        "-o",
        "--out",
        default=Path("report.html"),
        type=Path,
        metavar="FILE",
        help="where to write the page, report.html by default; an existing file is overwritten",
    )
    parser.add_argument(
        "--title", metavar="TEXT", help="the title of the page; by default, the names of the runs"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on until the runs have ended, or Ctrl-C: write the page whenever there is "
        f"something new, at most every {_SECONDS:g} seconds",
    )
    options = parser.parse(args)
    _check(parser, options)
    paths = options.compare or options.runs
    page = functools.partial(render, title=options.title)
    try:
        if options.watch:
            runs = follow(paths, options.out, page, seconds=_SECONDS)
        else:
            runs = [read(path) for path in paths]
            write(options.out, page(runs))
    except ValueError as error:
        print(f"gradstable report: cannot read: {error}", file=sys.stderr)
        return _FAILED
    except CannotWriteError as error:
        print(f"gradstable report: cannot write {options.out}: {error}", file=sys.stderr)
        return _FAILED
    except OSError as error:
        print(f"gradstable report: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return _REFUSED
    _tell(runs, options.out)
    return _WRITTEN


def _check(parser: Parser, options: Any) -> None:
    """Exit with a sentence if the options do not go together."""
    paths = [*options.runs, *options.compare]
    if options.runs and options.compare:
        parser.error("pass one file, or several after --compare, but not both")
    if not paths:
        parser.error("pass a file written by gs.telemetry.Log, or several after --compare")
    if len(options.runs) > 1:
        names = shlex.join(map(str, options.runs))
        parser.error(f"to compare several runs: gradstable report --compare {names}")
    if len(options.compare) == 1:
        parser.error("--compare needs two or more files; for a single file, leave out --compare")
    if options.out.resolve() in [path.resolve() for path in paths]:
        parser.error(f"--out {options.out} would overwrite the run itself")


def _tell(runs: Sequence[Run], out: Path) -> None:
    for run in runs:
        print(f"{run.name}: {verdict(run).text}")
    print(f"wrote {out} ({out.stat().st_size / 1024:,.0f} KB)")
