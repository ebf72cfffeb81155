"""What writes telemetry somewhere: the protocol of all sinks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Header(NamedTuple):
    """What is known of a run before its first step.

    Attributes:
      name: what the run is called.
      leaves: paths of the parameters, in tree order.
      sizes: entries of each.
      dtypes: of each.
      config: settings of the run, as given.
    """

    name: str
    leaves: tuple[str, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    config: Mapping[str, Any]


class Sink(Protocol):
    """Somewhere to write telemetry to. Each method is called on the host, in this order."""

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
        """End after so many steps; called once."""
        ...
