"""A run as a file of JSON lines: readable by eye, by ``jq`` and by ``gs.telemetry.read_run``."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from gradstable.telemetry.fields import FORMAT, member_of
from gradstable.telemetry.sink import Header


class JsonLines:
    """Write a run to a file, one JSON object a line; each reading is flushed.

    Numbers that JSON has no word for are the strings ``"nan"``, ``"inf"`` and ``"-inf"``. A file
    is complete after every flush: when the process dies, what was read from the device is there.

    Args:
      path: the file; its folder is made. An existing file is begun anew. Of several runs in one
        state (``vmap``) each has a file of its own beside it: ``run.member3.jsonl``.
      append: go on with an existing file instead, as after a restart; of a step that is there
        twice, the later record counts when it is read.

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
        self._append = append
        self._file: TextIO | None = None
        self._header = Header("", (), (), (), {})
        self._members: dict[str, JsonLines] = {}

    def open(self, header: Header) -> None:
        """Create the file; write the header."""
        self._header = header
        self._path.parent.mkdir(parents=True, exist_ok=True)
        going_on = self._append and self._path.exists() and self._path.stat().st_size > 0
        if going_on:
            _cut_broken_line(self._path)
        self._file = self._path.open("a" if going_on else "w", encoding="utf-8")
        if not going_on:
            self._write(
                event="run",
                format=FORMAT,
                gradstable=version("gradstable"),
                jax=version("jax"),
                **header._asdict(),
            )
            self._file.flush()

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one line a step; those of several runs to a file for each."""
        for member, own in by_member(rows).items():
            if member:
                self._file_of(member).steps(own)
                continue
            for row in own:
                self._write(event="step", **row)
        self._flush()

    def leaves(self, header: Header) -> None:
        """Write one line with the leaves that are recorded."""
        self._header = header
        names = {"leaves": header.leaves, "sizes": header.sizes, "dtypes": header.dtypes}
        self._write(event="leaves", **names)
        self._flush()
        for file in self._members.values():
            file.leaves(header)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line."""
        self._write(event="scalars", step=step, **values)
        self._flush()
        for file in self._members.values():
            file.scalars(step, values)

    def note(self, step: int, text: str) -> None:
        """Write one line."""
        self._write(event="note", step=step, text=text)
        self._flush()
        for file in self._members.values():
            file.note(step, text)

    def lost(self, first: int, last: int) -> None:
        """Write one line."""
        self._write(event="lost", first=first, last=last)
        for file in self._members.values():
            file.lost(first, last)

    def close(self, step: int) -> None:
        """Write the last line and close the file."""
        for file in self._members.values():
            file.close(step)
        if self._file is not None:
            self._write(event="end", step=step)
            self._file.close()
            self._file = None

    def _file_of(self, member: str) -> "JsonLines":
        """Return the file of one of several runs, ``run.member3.jsonl`` beside ``run.jsonl``."""
        if member not in self._members:
            path = self._path.with_name(f"{self._path.stem}.member{member}{self._path.suffix}")
            text = f"member {member} differs from others: its steps are in {path.name}"
            self._write(event="note", step=0, text=text)
            file = self._members[member] = JsonLines(path, append=self._append)
            file.open(self._header._replace(name=f"{self._header.name}, member {member}"))
        return self._members[member]

    def _write(self, **event: Any) -> None:
        if self._file is None:
            msg = f"the log {self._path} is not open: it is opened by Log, and closed after it"
            raise ValueError(msg)
        self._file.write(json.dumps(_plain(event), allow_nan=False) + "\n")

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()


def by_member(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each of several runs without its index; those of one under ``""``."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        plain = {name: value for name, value in row.items() if name != "member"}
        found.setdefault(member_of(row), []).append(plain)
    return found


def _plain(value: Any) -> Any:
    """Return what JSON can hold: strings for special numbers, and for what is none of its types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


def _cut_broken_line(path: Path) -> None:
    """Remove the end of a line that a process died in, so that the next is one of its own."""
    with path.open("rb+") as file:
        text = file.read()
        if not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
