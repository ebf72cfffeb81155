"""A layer between the log and a sink: errors are counted and reported, and never end a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.sink import (
    MISTAKES,
    Header,
    NamesLeaves,
    Rollback,
    Sink,
    TakesEvents,
    TakesRollbacks,
)
from gradstable._src.telemetry.telling import reason_of, steps_of, tell
from gradstable._src.telemetry.waiting import Spans, add_span

# What cannot be found in the rows.
_NOTED = ("rolled_back", "undone", "paused", "ended")


class Outlet:
    """A sink that may fail; ``name`` is what warnings call it."""

    def __init__(self, sink: Sink, *, name: str | None = None) -> None:
        self._sink = sink
        self._name = name or type(sink).__name__
        self._missed: Spans = []
        self._failures = 0
        self._works = False
        self._unnamed = False

    @property
    def takes_events(self) -> bool:
        """Whether the sink has a method for events."""
        return isinstance(self._sink, TakesEvents)

    def open(self, header: Header) -> None:
        """Open the sink; raises only mistakes in how it was set up."""
        try:
            self._sink.open(header)
        except MISTAKES:
            raise
        except Exception as error:
            self._failed(error)
        else:
            self._works = True

    def leaves(self, header: Header) -> None:
        """Pass on which leaves are recorded; a sink that cannot take them gets no leaf columns."""
        takes = isinstance(self._sink, NamesLeaves)
        self._unnamed = not (takes and self._call("leaves", header))

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Pass on recorded steps, and once that works again, which ones were missed."""
        if not rows:
            return
        if not self._call("steps", [_unnamed(row) for row in rows] if self._unnamed else rows):
            # Several runs follow one another, so steps are not in order.
            numbers = [row["step"] for row in rows]
            add_span(self._missed, (min(numbers), max(numbers)))
            return
        missed, self._missed = self._missed, []
        for span in missed:
            self.lost(*span)

    def lost(self, first: int, last: int) -> None:
        """Pass on that steps were overwritten."""
        if not self._call("lost", first, last):
            add_span(self._missed, (first, last))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on numbers."""
        self._call("scalars", step, values)

    def note(self, step: int, text: str) -> None:
        """Pass on a text."""
        self._call("note", step, text)

    def event(self, event: Event) -> None:
        """Pass on what happened; a sink that takes no events gets what is not in the rows."""
        if self.takes_events:
            self._call("event", event)
        elif event.kind == "rolled_back" and isinstance(self._sink, TakesRollbacks):
            times, to = event.row["times"], event.row["to"]
            self._call("rollback", Rollback(event.step, to, times, event.member))
        elif event.kind in _NOTED:
            self.note(event.step, event.note)

    def close(self, step: int) -> None:
        """Close the sink; report what it missed."""
        for span in self._missed:
            self._call("lost", *span)
        self._call("close", step)
        if self._failures > 1 or self._missed:
            times = "once" if self._failures == 1 else f"{self._failures:,} times"
            missed = f" It lacks {steps_of(self._missed)}." if self._missed else ""
            tell(f"{self._name} failed {times}.{missed}")

    def _call(self, method: str, *args: Any) -> bool:
        if not self._works:
            return False
        try:
            getattr(self._sink, method)(*args)
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            tell(f"{self._name} failed, but training continues: {reason_of(error)}.")


def _unnamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without leaf columns, for a sink that numbers other leaves."""
    kept = {name: value for name, value in row.items() if name != "leaf_norms"}
    return {**kept, "worst_leaf": -1, "rms_leaf": -1}
