"""What writes telemetry somewhere: the protocol of all sinks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

# What is wrong with how a log is made, and will not mend itself. Of all that a sink may raise, only
# these are raised, and only when it is opened: a sink never ends a training that has begun.
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
    """What is known of a run before its first step.

    Attributes:
      name: what the run is called.
      leaves: paths of the parameters, in tree order; where the recorder sees others, a sink that
        has a method ``leaves`` learns of them.
      sizes: entries of each.
      dtypes: of each.
      config: settings of the run, as given.
    """

    name: str
    leaves: tuple[str, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    config: Mapping[str, Any]


class Rollback(NamedTuple):
    """A return of ``gs.rollback`` to parameters that it had kept.

    Attributes:
      step: the step in which it began.
      to: the step before which the copy had been taken.
      times: how many there were since the log was read the last time; this is the last of them.
      member: which of several runs, as in the names of their files; empty for one.
    """

    step: int
    to: int
    times: int = 1
    member: str = ""

    @property
    def text(self) -> str:
        """The same in words."""
        whose = f"member {self.member}: " if self.member else ""
        last = f" (the last of {self.times})" if self.times > 1 else ""
        return f"{whose}rolled back to what was before step {self.to}{last}"


class Sink(Protocol):
    """Somewhere to write telemetry to. Each method is called on the host, in this order.

    Rows of several runs in one state (``vmap``, ``pmap``) have an index ``member``.

    A sink may raise: the log goes on without it, warns once, and tells it by ``lost`` which steps
    it missed as soon as it works again. Only mistakes in ``open`` are passed on.
    """

    def open(self, header: Header) -> None:
        """Begin; called once, before anything else."""
        ...

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write recorded steps, oldest first; see ``gs.telemetry.Rows``."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers that the training loop reports by itself."""
        ...

    def note(self, step: int, text: str) -> None:
        """Write something that happened, in words."""
        ...

    def lost(self, first: int, last: int) -> None:
        """Write that these steps were overwritten before they were read."""
        ...

    def close(self, step: int) -> None:
        """End after this many steps; called once."""
        ...


@runtime_checkable
class TakesRollbacks(Protocol):
    """A sink that takes rollbacks as what they are; another one gets a note."""

    def rollback(self, event: Rollback) -> None:
        """Write that the run went back."""
        ...


@runtime_checkable
class NamesLeaves(Protocol):
    """A sink that names leaves.

    One that does not is given rows without the numbers of leaves if the recorder turns out to see
    other leaves than the header has.
    """

    def leaves(self, header: Header) -> None:
        """Take the leaves of this header instead of those at the beginning."""
        ...
