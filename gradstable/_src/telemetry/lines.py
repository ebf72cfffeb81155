"""The lines of a run file: sound ones are passed on, broken ones are counted and reported."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

# Bytes that can surround a line without being part of it: a file system leaves NUL bytes when a
# power failure cuts off a write, and the last three are the byte order mark of some editors.
_SPACE, _JUNK = b" \t\r\n\xef\xbb\xbf", b"\0 \t\r\n\xef\xbb\xbf"
# The start of a line. Inside a string it would read {\"event\".
_BEGIN = re.compile(rb'(?=\{\s*"event"\s*:)')
_MAX_REMARKS = 5
_decode = json.JSONDecoder().raw_decode


class Damage:
    """What is wrong with a file: how many lines are broken, and the first few reports."""

    def __init__(self) -> None:
        self.lines = 0
        self.remarks: list[str] = []

    def add(self, number: int, what: str) -> None:
        """Count a line."""
        self.lines += 1
        self.tell(f"line {number:,}: {what}")

    def add_all(self, lines: int, what: str) -> None:
        """Count lines with the same problem."""
        self.lines += lines
        self.tell(f"{lines:,} lines: {what}")

    def tell(self, what: str) -> None:
        """Report something about the file as a whole."""
        if len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(what)


def objects(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with their line numbers.

    Each line is judged on its own, so a broken line costs nothing but itself. An object that
    follows a torn line or NUL bytes is found by how it starts.
    """
    for number, line in _lines(file, damage):
        try:
            text = line.decode()
            found, end = _decode(text)
        # A line of 10,000 brackets or a number of 10,000 digits is not ours either.
        except (ValueError, RecursionError):
            pass
        else:
            if type(found) is dict and text[end:] in ("\n", "", "\r\n"):
                yield number, found
                continue
        yield from _salvaged(number, line, damage)


def _lines(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline()
        except OSError as error:  # a bad block: everything before it is sound
            damage.add(number, f"cannot be read ({error.strerror}), nor can the lines after it")
            return
        if not line:
            return
        yield number, line


def _salvaged(number: int, line: bytes, damage: Damage) -> Iterator[tuple[int, dict[str, Any]]]:
    if not line.strip(_SPACE):
        return
    broken = "NUL bytes" if b"\0" in line else ""
    for part in _BEGIN.split(line):
        body = part.strip(_JUNK)
        if not body:
            continue
        try:
            found = json.loads(body.decode())
        except (ValueError, RecursionError):
            broken = broken or _why(body)
            continue
        if type(found) is dict:
            yield number, found
        else:
            broken = "not a JSON object"
    if broken:
        damage.add(number, broken)


def _why(body: bytes) -> str:
    if body.startswith(b"{") and not body.endswith(b"}"):
        return "cut off"
    return "not JSON"
