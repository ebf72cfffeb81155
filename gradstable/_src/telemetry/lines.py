"""The lines of a run file: what is sound is given on, what is broken is counted and told."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

# What may surround a line and is no part of it: NUL bytes are what a file system leaves of a write
# that a loss of power cut off, and the last three are the mark that some editors begin a file with.
_SPACE, _JUNK = b" \t\r\n\xef\xbb\xbf", b"\0 \t\r\n\xef\xbb\xbf"
# Where a line begins. Inside of a text it would read {\"event\".
_BEGIN = re.compile(rb'(?=\{\s*"event"\s*:)')
_TOLD = 5
_decode = json.JSONDecoder().raw_decode


class Damage:
    """What is wrong with a file: how many lines, and the first few of them in words."""

    def __init__(self) -> None:
        self.lines = 0
        self.told: list[str] = []

    def add(self, number: int, what: str) -> None:
        """Count a line."""
        self.lines += 1
        self.tell(f"line {number:,}: {what}")

    def add_all(self, lines: int, what: str) -> None:
        """Count lines that are alike."""
        self.lines += lines
        self.tell(f"{lines:,} lines: {what}")

    def tell(self, what: str) -> None:
        """Say something of the file as a whole."""
        if len(self.told) < _TOLD:
            self.told.append(what)


def objects(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with the number of their line, one after the other.

    A line is judged alone, so that one broken one costs nothing but itself. What was written
    behind a torn line, or behind NUL bytes, is found by its beginning.
    """
    for number, line in _lines(file, damage):
        try:
            text = line.decode()
            found, end = _decode(text)
        # A line of 10,000 brackets, or a number of 10,000 digits, is no JSON of ours either.
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
        except OSError as error:  # a bad block: what came before it is sound
            damage.add(number, f"cannot be read ({error.strerror}), nor can what follows")
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
            broken = "no JSON object"
    if broken:
        damage.add(number, broken)


def _why(body: bytes) -> str:
    if body.startswith(b"{") and not body.endswith(b"}"):
        return "cut off"
    return "not JSON"
