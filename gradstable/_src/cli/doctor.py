"""``gradstable doctor``: diagnose a recorded run in words, with the numbers behind it."""

import json
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradstable._src.cli.reading import read
from gradstable._src.doctor.diagnosis import Diagnosis, Severity
from gradstable._src.doctor.table import diagnose
from gradstable._src.telemetry.blame import blame
from gradstable._src.telemetry.run import Run

_WIDTH, _INDENT = 96, "   "
_READ, _NO_RECORD, _NO_FILE = 0, 1, 2


@dataclass(frozen=True)
class Options:
    """Diagnose a recorded run, and say what to do about it.

    Every diagnosis follows a documented rule: a number of the run and a threshold, shown with it.
    Causes come before their effects.

    Exit status: 0 if all files were read, whatever was found in them; 1 if a file is not a record
    of a run; 2 if a file cannot be opened, or the options are wrong. Other files are judged anyway.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(name="run", metavar="RUN [RUN ...]")
    ]
    """One or more files written by gs.telemetry.Log."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Write JSON for programs instead of sentences: a list with an object for each file."""


def main(args: Sequence[str]) -> int:
    """Run ``gradstable doctor`` with these arguments; return the exit status."""
    options = tyro.cli(Options, prog="gradstable doctor", args=list(args))
    if not options.runs:
        print("gradstable doctor: pass a file written by gs.telemetry.Log", file=sys.stderr)
        return _NO_FILE
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
            reports.append(_report(run, found) if options.as_json else _text(run, found))
    if options.as_json:
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
