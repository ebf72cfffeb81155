"""A sink for Python's logging that reports only what a person wants to know."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from gradstable._src.core.reasons import sentence
from gradstable._src.telemetry.fields import ALARM_SENTENCES, member_of, which_part
from gradstable._src.telemetry.notices import Notices
from gradstable._src.telemetry.sink import Header


class Logging:
    """Report on a run in sentences, through a ``logging.Logger``.

    Rejected steps and early warnings are logged as warnings; each reading adds one info line with
    the last step, the loss and how many steps were clipped. Equal events in a row are reported
    once, with their range of steps. If a steady share of the steps is rejected or clipped to the
    usual size (``docs/doctor``), a warning says which, at most once in 1,000 steps.

    Args:
      logger: the logger to use. Default: ``gradstable``.

    Example:
      >>> import logging
      >>> import gradstable as gs
      >>> sink = gs.telemetry.Logging(logging.getLogger("my_run"))
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("gradstable") if logger is None else logger
        self._leaves: tuple[str, ...] = ()
        self._notices = Notices()

    def open(self, header: Header) -> None:
        """Log that the run starts."""
        self._leaves = header.leaves
        self._logger.info(
            "%s: %d parameters in %d leaves", header.name, sum(header.sizes), len(header.leaves)
        )

    def leaves(self, header: Header) -> None:
        """Use these names."""
        self._leaves = header.leaves

    def steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log unusual events, and where the run is."""
        for first, last, text in events(rows, self._leaves):
            place = f"step {first}" if first == last else f"steps {first} to {last}"
            self._logger.warning("%s: %s", place, text)
        for text in self._notices.after(rows, self._leaves):
            self._logger.warning("step %d: %s", rows[-1]["step"], text)
        for member in dict.fromkeys(map(member_of, rows)):
            mine = [row for row in rows if member_of(row) == member]
            row = mine[-1]
            clipped = sum(one.get("scale") not in (0, 1, None) for one in mine)
            self._logger.info(
                f"{_whose(row)}step %d: loss %.4g, gradient norm %.3g, %d of %d steps clipped",
                row["step"],
                row.get("loss", float("nan")),
                row.get("grad_norm", float("nan")),
                clipped,
                len(mine),
            )

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


def events(rows: Sequence[Mapping[str, Any]], leaves: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return first step, last step and text of unusual events, merging equal neighbors."""
    found: list[tuple[int, int, str]] = []
    for row in rows:
        for text in _unusual(row, leaves):
            if found and found[-1][2] == text and found[-1][1] == row["step"] - 1:
                found[-1] = (found[-1][0], row["step"], text)
            else:
                found.append((row["step"], row["step"], text))
    return found


def _whose(row: Mapping[str, Any]) -> str:
    member = member_of(row)
    return f"member {member}: " if member else ""


def _unusual(row: Mapping[str, Any], leaves: Sequence[str]) -> list[str]:
    found = []
    if row.get("scale") == 0:
        leaf = row.get("worst_leaf", -1)
        place = f", in {leaves[leaf]}" if 0 <= leaf < len(leaves) else ""
        found.append(f"rejected: {sentence(row['reason'])}{place}{which_part(row)}")
    bits = row.get("alarms", 0)
    found += [f"early warning: {text}" for alarm, text in ALARM_SENTENCES.items() if bits & alarm]
    return [f"{_whose(row)}{text}" for text in found]
