"""A sink that only calls a function with each event."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.sink import Header


class OnEvent:
    """Call a function, as ``Log(on_event=...)`` does."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        if not callable(function):
            msg = (
                "on_event must be a function of one gs.telemetry.Event, such as print, "
                f"got {function!r}"
            )
            raise TypeError(msg)
        self._function = function

    def event(self, event: Event) -> None:
        """Call it."""
        self._function(event)

    def open(self, header: Header) -> None:
        """Do nothing, like all methods below."""

    def leaves(self, header: Header) -> None:
        """Do nothing: events name leaves."""

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def note(self, step: int, text: str) -> None:
        """Do nothing: the training loop wrote it."""

    def lost(self, first: int, last: int) -> None:
        """Do nothing."""

    def close(self, step: int) -> None:
        """Do nothing."""
