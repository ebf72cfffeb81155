"""``gradstable doctor``: diagnose a recorded run in words, with the numbers behind it."""

import json
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradstable._src.cli.options import Parser
from gradstable._src.cli.reading import read
from gradstable._src.doctor.diagnosis import Diagnosis, Severity
from gradstable._src.doctor.table import diagnose
from gradstable._src.telemetry.blame import blame
from gradstable._src.telemetry.run import Run

_WIDTH, _INDENT = 96, "   "
_READ, _NO_RECORD, _NO_FILE = 0, 1, 2


_TEXT = """\
Diagnose a recorded run, and say what to do about it.

Every diagnosis follows a documented rule: a number of the run and a threshold, shown with it. \
Causes come before their effects."""
_EXITS = {
    _READ: "all files were read, whatever was found in them",
    _NO_RECORD: "a file is not a record of a run; the other files are judged anyway",
    _NO_FILE: "a file cannot be opened, or the options are wrong",
}


def main(args: Sequence[str]) -> int:
    """Run ``gradstable doctor`` with these arguments; return the exit status."""
    parser = Parser("doctor", _TEXT, exits=_EXITS)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="a file written by gs.telemetry.Log"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write JSON for programs instead of sentences: a list with an object for each file",
    )
    options = parser.parse(args)
    if not options.runs:
        parser.error("pass a file written by gs.telemetry.Log")
    status, reports = _READ, []
    for path in options.runs:
        try:
            run = read(path)
        except OSError as error:
            print(f"gradstable doctor: cannot read {path}: {error.strerror}", file=sys.stderr)
            status = max(status, _NO_FILE)
        except ValueError as error:
            print(f"gradstable doctor: {error}", file=sys.stderr)
            status = max(status, _NO_RECORD)
        else:
            found = diagnose(run)
            reports.append(_report(run, found) if options.json else _text(run, found))
    if options.json:
        print(json.dumps(reports, indent=2, allow_nan=False))
    elif reports:
        print("\n\n\n".join(reports))
    return status


def _text(run: Run, found: Sequence[Diagnosis]) -> str:
    parts = [f"{run.name}: {_extent(run)}"]
    for number, one in enumerate(found, start=1):
        severity = "" if one.severity == Severity.NONE else f" ({one.severity.name.lower()})"
        evidence = [f"- {piece.text}" for piece in one.evidence]
        lines = [one.sentence, *evidence, f"Advice: {one.advice}"]
        parts.append("\n".join([f"{number}. {one.name}{severity}", *map(_folded, lines)]))
    culprit = _culprit(run, found)
    return "\n\n".join([*parts, *([culprit] if culprit else [])])


def _folded(text: str) -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT + "  " * text.startswith("- "),
        # Do not break paths or numbers.
        break_long_words=False,
        break_on_hyphens=False,
    )


def _extent(run: Run) -> str:
    broken = f", {run.damaged:,} broken lines left out" if run.damaged > 1 else ""
    broken = ", 1 broken line left out" if run.damaged == 1 else broken
    if not len(run.step):
        return f"no steps recorded{broken}"
    return f"{len(run.step):,} steps recorded, {run.step[0]:,} to {run.step[-1]:,}{broken}"


def _culprit(run: Run, found: Sequence[Diagnosis]) -> str | None:
    """Say which leaf exploded first, if any did and no diagnosis says so already."""
    ill = any(one.severity > Severity.NOTE for one in found)
    # What comes back did not explode.
    if not ill or any(one.name in ("layer_grows_first", "recurring_gradients") for one in found):
        return None
    first = blame(run)
    return None if first is None else first.sentence


def _report(run: Run, found: Sequence[Diagnosis]) -> dict[str, Any]:
    """Return the content of the text as JSON data."""
    diagnoses = [
        {
            "name": one.name,
            "severity": one.severity.name.lower(),
            "sentence": one.sentence,
            "evidence": [_plain(piece._asdict()) for piece in one.evidence],
            "advice": one.advice,
        }
        for one in found
    ]
    return {
        "path": run.path,
        "run": run.name,
        "steps": len(run.step),
        "broken_lines": run.damaged,
        "remarks": list(run.remarks),
        "diagnoses": diagnoses,
        "blame": _culprit(run, found),
    }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Write special numbers as strings, as a run file does."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
