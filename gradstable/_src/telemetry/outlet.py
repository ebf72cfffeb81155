"""Between the log and a sink: what a sink raises is counted and told, and ends no training."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.sink import (
    MISTAKES,
    Header,
    NamesLeaves,
    Rollback,
    Sink,
    TakesRollbacks,
)
from gradstable._src.telemetry.telling import reason_of, steps_of, tell
from gradstable._src.telemetry.waiting import Spans, add_span


class Outlet:
    """A sink that may fail."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._name = type(sink).__name__
        self._missed: Spans = []
        self._failures = 0
        self._works = False
        self._unnamed = False

    def open(self, header: Header) -> None:
        """Open the sink; raises what is a mistake in how it was made."""
        try:
            self._sink.open(header)
        except MISTAKES:
            raise
        except Exception as error:
            self._failed(error)
        else:
            self._works = True

    def leaves(self, header: Header) -> None:
        """Pass on which leaves are recorded; what does not take it gets no numbers of leaves."""
        takes = isinstance(self._sink, NamesLeaves)
        self._unnamed = not (takes and self._call("leaves", header))

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Pass on recorded steps, and what was missed before them once that works again."""
        if not rows:
            return
        if not self._call("steps", [_unnamed(row) for row in rows] if self._unnamed else rows):
            # Of several runs, the steps of one follow those of another.
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

    def rollback(self, event: Rollback) -> None:
        """Pass on that the run went back, in words where the sink takes nothing else."""
        if isinstance(self._sink, TakesRollbacks):
            self._call("rollback", event)
        else:
            self.note(event.step, event.text)

    def close(self, step: int) -> None:
        """Close the sink; say what it has missed."""
        for span in self._missed:
            self._call("lost", *span)
        self._call("close", step)
        if self._failures > 1 or self._missed:
            times = "once" if self._failures == 1 else f"{self._failures:,} times"
            told = f" Not in it: {steps_of(self._missed)}." if self._missed else ""
            tell(f"{self._name} has failed {times}.{told}")

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
            tell(f"{self._name} has failed, training goes on: {reason_of(error)}.")


def _unnamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the numbers of leaves, for what knows others by these numbers."""
    kept = {name: value for name, value in row.items() if name != "leaf_norms"}
    return {**kept, "worst_leaf": -1, "rms_leaf": -1}
