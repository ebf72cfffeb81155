"""A bounded queue of lines to be written, which records the steps of dropped lines."""

from collections import deque
from typing import NamedTuple

Spans = list[tuple[int, int]]


class Line(NamedTuple):
    """A line, and the first and last step that are lost with it, if any."""

    data: bytes
    steps: tuple[int, int] | None = None


class Waiting:
    """A queue of lines. Beyond a limit, it drops the oldest lines, always whole ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: deque[Line] = deque()
        self._size = 0
        # Data that comes before them and is never dropped: a header, or the rest of a partly
        # written line.
        self._begun = Line(b"")
        self.midway = False
        self.dropped: Spans = []

    def __bool__(self) -> bool:
        """Return whether anything is waiting."""
        return bool(self._lines or self._begun.data)

    def begin(self, data: bytes) -> None:
        """Put something first that is never dropped."""
        self._begun = self._begun._replace(data=data + self._begun.data)

    def put(self, line: Line) -> None:
        """Add a line at the end."""
        self._lines.append(line)
        self._size += len(line.data)
        while self._size > self._limit and len(self._lines) > 1:
            self._drop(self._lines.popleft())

    def data(self) -> bytes:
        """Return everything that is waiting."""
        return self._begun.data + b"".join(line.data for line in self._lines)

    def written(self, number: int) -> None:
        """Note that this many bytes of the data are in the file."""
        line = self._begun
        while number > len(line.data):
            number -= len(line.data)
            line = self._lines.popleft()
            self._size -= len(line.data)
        self._begun = line._replace(data=line.data[number:])
        self.midway = bool(self._begun.data)

    def give_up(self) -> None:
        """Drop everything that is waiting."""
        if self._begun.data and self._begun.steps is not None:
            add_span(self.dropped, self._begun.steps)
        self._begun = Line(b"")
        while self._lines:
            self._drop(self._lines.popleft())

    def _drop(self, line: Line) -> None:
        self._size -= len(line.data)
        if line.steps is not None:
            add_span(self.dropped, line.steps)


def add_span(spans: Spans, span: tuple[int, int]) -> None:
    """Add a stretch of steps, merged with the last one if they touch."""
    if spans and spans[-1][0] <= span[0] <= spans[-1][1] + 1:
        spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
    else:
        spans.append(span)
