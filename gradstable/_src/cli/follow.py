"""Keep a page up to date while its runs go on."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradstable._src.cli.reading import read
from gradstable._src.telemetry.run import Run


class CannotWriteError(Exception):
    """The page cannot be written; the message says why."""


def write(out: Path, text: str) -> None:
    """Write a page, so that a browser that reads it meanwhile sees the old one or the new one.

    Raises:
      CannotWriteError: if it cannot be written.
    """
    if out.is_dir():
        raise CannotWriteError(os.strerror(errno.EISDIR))
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CannotWriteError(error.strerror or str(error)) from error


def follow(
    paths: Sequence[Path],
    out: Path,
    render: Callable[..., str],
    *,
    seconds: float,
) -> list[Run]:
    """Write the page of these runs whenever one of their files has grown.

    Ends when all runs have ended, or at Ctrl-C. Until then, the page reloads itself.

    Args:
      paths: the files; those that do not exist yet, or are still empty, are waited for.
      out: the page.
      render: makes the page of a list of runs; takes ``reload=``.
      seconds: the time between two looks at the files.

    Returns:
      The runs as last read.

    Raises:
      CannotWriteError: if the page cannot be written.
      OSError, ValueError: at Ctrl-C, if there never was a run to read.
    """
    seen: Any = None
    runs: list[Run] = []
    told = ""
    try:
        while True:
            now = [_state(path) for path in paths]
            began = time.monotonic()
            if now != seen and all(now):
                try:
                    runs = [read(path) for path in paths]
                except ValueError:  # its first lines are not there yet
                    runs = []
            if runs and now != seen:
                ended = all(run.ended for run in runs)
                write(out, render(runs, reload=None if ended else seconds))
                told = _tell(f"wrote {out}; it follows the run until it ends, or Ctrl-C", told)
                if ended:
                    return runs
                seen = now
            elif not runs:
                told = _tell(f"waiting for {', '.join(map(str, paths))}", told)
            # Of a long run, no more than half of the time is spent on its page.
            time.sleep(max(seconds, time.monotonic() - began))
    except KeyboardInterrupt:
        print()
        if not runs:
            return [read(path) for path in paths]
        write(out, render(runs, reload=None))
        return runs


def _tell(text: str, told: str) -> str:
    """Print a line, unless it was the last one."""
    if text != told:
        print(text, flush=True)
    return text


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file grows; ``None`` if it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
