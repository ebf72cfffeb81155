"""The note that a rollback was undone: how a log writes it, and how it is read back."""

import re
from typing import NamedTuple

from gradstable._src.telemetry.run import Run

_NOTE = re.compile(
    r"(?:member (?P<member>[\d-]+): )?(?:a rollback|(?P<times>\d+) rollbacks) did not help and "
    r"(?:was|were) undone"
)
# The end of the name of one of several runs, or of its file if the name is lost.
_MEMBER = re.compile(r"\bmember ?([\d-]+)$")


class Undone(NamedTuple):
    """Rollbacks that were undone between two readings.

    Attributes:
      step: the step at which the last of them was.
      times: how many there were.
    """

    step: int
    times: int


def undone_note(times: int) -> str:
    """Return the text of the note about rollbacks that were undone."""
    which = "a rollback" if times == 1 else f"{times} rollbacks"
    return f"{which} did not help and {'was' if times == 1 else 'were'} undone"


def undone_in(run: Run) -> list[Undone]:
    """Return what the notes of a run tell of its own rollbacks, in order.

    The notes of all members are in the file of each.
    """
    mine = _MEMBER.search(run.name)
    found = set()
    for note in run.notes:
        read = _NOTE.fullmatch(note.text)
        if read and read["member"] in (None, mine and mine[1]):
            found.add(Undone(note.step, int(read["times"] or 1)))
    return sorted(found)
