"""Mark a file on a full disk as incomplete when it is closed."""

import json
import os
from pathlib import Path

from gradstable._src.telemetry.waiting import Spans, add_span

# How much of the end is examined: a few hundred lines.
_TAIL = 1 << 16


def write_last_words(path: Path, lost: Spans, *, step: int) -> None:
    """Overwrite the last lines of a full file with the steps that are lost.

    Otherwise nobody would notice that steps are missing. A line or two are given up to make room
    for the lines that name the missing steps; the steps of the lines given up are added to
    ``lost``. If that fails too, the file stays as it is.
    """
    if not path.is_file():
        return  # a device or a pipe has no lines to overwrite
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            begin = max(size - _TAIL, 0)
            file.seek(begin)
            tail = file.read(_TAIL)
            cut = tail.rfind(b"\n") + 1
            # Never overwrite a line that names the leaves, such as the first.
            while cut > 0 and (begin or b"\n" in tail[: cut - 1]):
                words = _words(lost, step)
                if len(words) <= size - begin - cut:
                    file.seek(begin + cut)
                    file.write(words)
                    file.truncate()
                    return
                cut, last = tail.rfind(b"\n", 0, cut - 1) + 1, cut
                if tail.startswith(b'{"event": "leaves"', cut):
                    return
                _give_up(tail[cut:last], lost)
    except OSError:
        return


def _words(lost: Spans, step: int) -> bytes:
    events = [{"event": "lost", "first": first, "last": last} for first, last in lost]
    return b"".join(
        (json.dumps(event) + "\n").encode() for event in [*events, {"event": "end", "step": step}]
    )


def _give_up(line: bytes, lost: Spans) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        return
    if event.get("event") in ("step", "lost"):
        first = event.get("first", event.get("step"))
        rest = list(lost)
        lost[:] = [(first, event.get("last", first))]
        for span in rest:
            add_span(lost, span)
