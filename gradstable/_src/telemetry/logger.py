"""A sink for Python's logging that reports only what a person wants to know."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.fields import member_of
from gradstable._src.telemetry.sink import Header


class Logging:
    """Report on a run in sentences, through a ``logging.Logger``.

    Each reading adds one info line with the last step, the loss and how many steps were clipped and
    rejected. Every ``gs.telemetry.Event`` is a warning, or an error if the run cannot continue on
    its own: rejected steps, early warnings, a steady share of rejected or clipped steps, rollbacks.

    Args:
      logger: the logger to use. Default: ``gradstable``.

    Example:
      >>> import logging
      >>> import gradstable as gs
      >>> sink = gs.telemetry.Logging(logging.getLogger("my_run"))
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("gradstable") if logger is None else logger

    def open(self, header: Header) -> None:
        """Log that the run starts."""
        self._logger.info(
            "%s: %d parameters in %d leaves", header.name, sum(header.sizes), len(header.leaves)
        )

    def leaves(self, header: Header) -> None:
        """Do nothing: events name leaves."""
        del header

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log where the run is."""
        for member in dict.fromkeys(map(member_of, rows)):
            mine = [row for row in rows if member_of(row) == member]
            row = mine[-1]
            clipped = sum(one.get("scale") not in (0, 1, None) for one in mine)
            self._logger.info(
                "%sstep %d: loss %.4g, gradient norm %.3g, %d of %d steps clipped, %d rejected",
                f"member {member}: " if member else "",
                row["step"],
                row.get("loss", float("nan")),
                row.get("grad_norm", float("nan")),
                clipped,
                len(mine),
                sum(one.get("scale") == 0 for one in mine),
            )

    def event(self, event: Event) -> None:
        """Log it as a warning, or as an error."""
        level = logging.ERROR if event.is_serious else logging.WARNING
        self._logger.log(level, "%s", event.sentence)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._logger.info("step %d: %s", step, numbers)

    def note(self, step: int, text: str) -> None:
        """Log it."""
        self._logger.info("step %d: %s", step, text)

    def lost(self, first: int, last: int) -> None:
        """Log it as a warning."""
        self._logger.warning("steps %d to %d were overwritten before they were read", first, last)

    def close(self, step: int) -> None:
        """Log that the run ended."""
        self._logger.info("ended after %d steps", step)
