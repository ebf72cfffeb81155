"""The protocol of all sinks, which write telemetry somewhere."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from gradstable._src.telemetry.event import Event

# Mistakes in how a log is set up, which will not go away. Of all errors in a sink, only these are
# raised, and only when it is opened: a sink never ends a run that has started.
MISTAKES = (
    ValueError,
    TypeError,
    ImportError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
)


class Header(NamedTuple):
    """What is known about a run before its first step.

    Attributes:
      name: the name of the run.
      leaves: paths of the parameters, in tree order; if the recorder sees other leaves, sinks with
        a method ``leaves`` receive those.
      sizes: the number of entries of each.
      dtypes: the dtype of each.
      config: settings of the run, as you passed them.
    """

    name: str
    leaves: tuple[str, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    config: Mapping[str, Any]


class Rollback(NamedTuple):
    """A return of ``gs.rollback`` to parameters it had saved.

    Attributes:
      step: the step at which it happened.
      to: the step before which the copy was taken.
      times: how many there were since the last reading; this is the last of them.
      member: which of several runs, as in the names of their files; empty for a single run.
    """

    step: int
    to: int
    times: int = 1
    member: str = ""

    @property
    def text(self) -> str:
        """The event as text."""
        whose = f"member {self.member}: " if self.member else ""
        last = f" (the last of {self.times})" if self.times > 1 else ""
        return f"{whose}rolled back to the state before step {self.to}{last}"


class Sink(Protocol):
    """A place to write telemetry to. Its methods are called on the host, in this order.

    Rows of several runs in one state (``vmap``, ``pmap``) carry an index ``member``.

    A sink may raise: the log continues without it, warns once, and calls ``lost`` with the steps it
    missed as soon as it works again. Only mistakes in ``open`` are raised.

    Two more methods are optional. ``event(event)`` gets what a person wants to know, after the
    rows that it was found in, see ``gs.telemetry.Event``; without it, rollbacks and the exception
    that ended the loop arrive as notes. ``leaves(header)`` is called if the recorder sees other
    leaves than those in the header; without it, rows then have no leaf columns.
    """

    def open(self, header: Header) -> None:
        """Start; called once, before anything else."""
        ...

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write recorded steps, oldest first; see ``gs.telemetry.Rows``."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers that the training loop reports."""
        ...

    def note(self, step: int, text: str) -> None:
        """Write a note about something that happened."""
        ...

    def lost(self, first: int, last: int) -> None:
        """Record that these steps were overwritten before they were read."""
        ...

    def close(self, step: int) -> None:
        """Finish after this many steps; called once."""
        ...


@runtime_checkable
class TakesEvents(Protocol):
    """A sink with a method for events; other sinks find most of them in the rows."""

    def event(self, event: Event) -> None:
        """Tell that something happened."""
        ...


@runtime_checkable
class TakesRollbacks(Protocol):
    """A sink with a method for rollbacks alone; other sinks receive a note."""

    def rollback(self, event: Rollback) -> None:
        """Record that the run rolled back."""
        ...


@runtime_checkable
class NamesLeaves(Protocol):
    """A sink that names leaves.

    Other sinks receive rows without leaf columns if the recorder turns out to see other leaves than
    those in the header.
    """

    def leaves(self, header: Header) -> None:
        """Use the leaves of this header instead of the first ones."""
        ...
