"""A run as a file of JSON lines, readable by eye, with ``jq`` and by ``gs.telemetry.read_run``."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path
from typing import Any

from gradstable._src.telemetry.exclusive import TakenError, open_exclusively
from gradstable._src.telemetry.fields import FORMAT, member_of
from gradstable._src.telemetry.last_words import write_last_words
from gradstable._src.telemetry.sink import MISTAKES, Header, Rollback
from gradstable._src.telemetry.telling import reason_of, steps_of, tell
from gradstable._src.telemetry.waiting import Line, Waiting

# How many bytes wait for room on a full disk at most: some 50,000 steps.
_MOST_WAITING = 1 << 24
# After these errors, an open file is no longer usable.
_GONE = (errno.EBADF, errno.ESTALE, errno.ENODEV, errno.ENXIO)


class JsonLines:
    """Write a run to a file, one JSON object per line; each reading is written immediately.

    Numbers that JSON cannot express are the strings ``"nan"``, ``"inf"`` and ``"-inf"``. When the
    process dies, everything read from the device is in the file.

    If the file cannot be written, as on a full disk, it warns once and training continues. Up to 16
    MB of lines wait and are written when there is room. The steps that had to be dropped are also
    recorded, and read back as ``Run.lost``.

    A file has one writer: a second one is refused, in this process or another, if the file system
    supports locks. The lock ends with its process, so a killed run can be restarted.

    Args:
      path: the file; its folder is created. An existing file is overwritten. Several runs in one
        state (``vmap``) each get their own file next to it: ``run.member3.jsonl``.
      append: append to an existing file instead, as after a restart; if a step occurs twice, the
        later record counts when it is read.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> import gradstable as gs
      >>> file = tempfile.mkdtemp() + "/run.jsonl"
      >>> with gs.telemetry.Log(jnp.ones(2), sinks=[gs.telemetry.JsonLines(file)]) as log:
      ...     log.note(1, "began")
      >>> print(pathlib.Path(file).read_text().splitlines()[1])
      {"event": "note", "step": 1, "text": "began"}
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self._path = Path(path)
        # The first one changes once the file is open.
        self._append = self._append_members = append
        self._file: FileIO | None = None
        self._waiting = Waiting(_MOST_WAITING)
        self._is_open = False
        self._trouble = ""
        self._header = Header("", (), (), (), {})
        self._others: dict[str, Any] | None = (
            None  # the line with leaves that differ from the header's
        )
        self._members: dict[str, JsonLines] = {}

    def open(self, header: Header) -> None:
        """Open the file; write the header.

        Raises:
          ValueError: if another writer has the file open.
          PermissionError, IsADirectoryError, NotADirectoryError: if it can never be written.
        """
        first = {"event": "run", "format": FORMAT, "gradstable": _version("gradstable"),
                 "jax": _version("jax"), **header._asdict()}  # fmt: skip
        self._header = header
        if not (self._append and _has_header(self._path)):
            self._waiting.begin(_line(first))
        self._is_open = True
        try:
            self._reach()
        except MISTAKES:
            self._is_open = False
            raise
        except OSError as error:
            self._failed(error)
        self._drain()

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one line per step; each of several runs has its own file."""
        failed: Exception | None = None
        for member, own in by_member(rows).items():
            if member:
                try:
                    self._file_of(member).steps(own)
                except Exception as error:  # of one file, which says nothing about the others
                    failed = error
                continue
            for row in own:
                self._put({"event": "step", **row}, (row["step"], row["step"]))
        self._drain()
        if failed is not None:
            raise failed

    def leaves(self, header: Header) -> None:
        """Write one line with the leaves that are recorded."""
        self._header = header
        names = {"leaves": header.leaves, "sizes": header.sizes, "dtypes": header.dtypes}
        self._others = {"event": "leaves", **names}
        self._put(self._others)
        self._drain()
        for file in self._members.values():
            file.leaves(header)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line."""
        self._put({"event": "scalars", "step": step, **values})
        self._drain()
        for file in self._members.values():
            file.scalars(step, values)

    def note(self, step: int, text: str) -> None:
        """Write one line."""
        self._put({"event": "note", "step": step, "text": str(text)})
        self._drain()
        for file in self._members.values():
            file.note(step, text)

    def rollback(self, event: Rollback) -> None:
        """Write one line, for one of several runs to that run's file."""
        if event.member:
            self._file_of(event.member).rollback(event._replace(member=""))
            return
        line = {"step": event.step, "to": event.to, "times": event.times}
        self._put({"event": "rollback", **line})
        self._drain()

    def lost(self, first: int, last: int) -> None:
        """Write one line."""
        self._put({"event": "lost", "first": first, "last": last}, (first, last))
        for file in self._members.values():
            file.lost(first, last)

    def close(self, step: int) -> None:
        """Write the last line and close the file."""
        if not self._is_open:
            return
        for file in self._members.values():
            file.close(step)
        self._put({"event": "end", "step": step})
        done = self._drain()
        self._is_open = False
        if not done:
            self._waiting.give_up()
            lost = self._waiting.dropped
            write_last_words(self._path, lost, step=step)
            missing = f" It lacks {steps_of(lost)}." if lost else ""
            tell(f"{self._path} could not be written to the end ({self._trouble}).{missing}")
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:  # a quota or a server that reports only now
            tell(f"{self._path} could not be closed: {reason_of(error)}")

    def _file_of(self, member: str) -> "JsonLines":
        """Return the file of one of several runs, ``run.member3.jsonl`` next to ``run.jsonl``."""
        if member not in self._members:
            path = self._path.with_name(f"{self._path.stem}.member{member}{self._path.suffix}")
            file = JsonLines(path, append=self._append_members)
            file.open(self._header._replace(name=f"{self._header.name}, member {member}"))
            self._members[member] = file
            text = f"member {member} differs from the others: its steps are in {path.name}"
            self._put({"event": "note", "step": 0, "text": text})
        return self._members[member]

    def _put(self, event: Mapping[str, Any], steps: tuple[int, int] | None = None) -> None:
        if not self._is_open:
            msg = f"the log {self._path} is not open: Log opens it and closes it at the end"
            raise ValueError(msg)
        self._waiting.put(Line(_line(event), steps))

    def _reach(self) -> FileIO:
        """Return the file, opening it if necessary."""
        if self._file is None:
            self._file, torn = open_exclusively(self._path, keep=self._append)
            # From now on, it contains our lines.
            self._append = True
            if torn and not self._waiting.midway:
                # A process died while writing this line: start a new one.
                self._waiting.begin(b"\n")
        return self._file

    def _drain(self) -> bool:
        """Write everything that is waiting; return whether that succeeded."""
        try:
            while self._waiting:
                # One call for everything, so that lines stay whole and nothing is left in a buffer.
                self._waiting.written(_write(self._reach(), self._waiting.data()))
                if not self._waiting:
                    self._admit()
        except (OSError, TakenError) as error:
            self._failed(error)
            return False
        return True

    def _admit(self) -> None:
        """Write to the file which steps are missing from it."""
        spans, self._waiting.dropped = self._waiting.dropped, []
        if spans and self._others is not None:  # which may have been dropped
            self._waiting.put(Line(_line(self._others)))
        for first, last in spans:
            data = _line({"event": "lost", "first": first, "last": last})
            self._waiting.put(Line(data, (first, last)))
        if spans:
            text = f"{steps_of(spans)} could not be written: {self._trouble}"
            self._waiting.put(Line(_line({"event": "note", "step": spans[-1][1], "text": text})))

    def _failed(self, error: Exception) -> None:
        if not self._trouble:
            tell(
                f"{self._path} cannot be written: {reason_of(error)}. Training continues; lines "
                "wait until the file can be written."
            )
        self._trouble = reason_of(error)
        if isinstance(error, OSError) and error.errno in _GONE and self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.close()


def by_member(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows by run, without the index; a single run has the key ``""``."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        plain = {name: value for name, value in row.items() if name != "member"}
        found.setdefault(member_of(row), []).append(plain)
    return found


def _version(package: str) -> str:
    """Return the version of a package, or nothing if its files cannot be read."""
    try:
        return version(package)
    except (PackageNotFoundError, OSError):
        return ""


def _write(file: FileIO, data: bytes) -> int:
    number = file.write(data)
    if not number:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return number


def _line(event: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain(event), allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """Return a JSON value, with strings for special numbers and for other types."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


def _has_header(path: Path) -> bool:
    """Return whether a file starts like a run."""
    try:
        with path.open("rb") as file:
            return file.read(16) == _line({"event": "run"})[:15] + b","
    except OSError:
        return False
