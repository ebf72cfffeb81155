"""What a file on a full disk says of itself when it is closed."""

import json
import os
from pathlib import Path

from gradstable._src.telemetry.waiting import Spans, add_span

# So much of the end is looked at: some hundred lines.
_TAIL = 1 << 16


def write_last_words(path: Path, lost: Spans, *, step: int) -> None:
    """Write which steps are lost over the last lines of a file, where no room is left behind them.

    What no longer fits is not only missing, it would be missed by nobody. So a line or two
    are given up for the lines that say what is not there; the steps of these are added to
    ``lost``. Where that fails too, the file stays as it is.
    """
    if not path.is_file():
        return  # a device or a pipe has no lines to write over
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            begin = max(size - _TAIL, 0)
            file.seek(begin)
            tail = file.read(_TAIL)
            cut = tail.rfind(b"\n") + 1
            # Never a line that names the leaves, such as the first.
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
