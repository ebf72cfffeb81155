"""A diagnosis: a name, a sentence, the numbers behind it, and advice."""

import enum
import operator
from typing import NamedTuple

_HOLDS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Severity(enum.IntEnum):
    """How bad a diagnosis is.

    ``FATAL``: the run is lost, or no longer learns anything. ``SERIOUS``: it harms the run a lot.
    ``MILD``: worth a change, but the run tolerates it. ``NOTE``: about the log, not the training.
    ``NONE``: all is well.
    """

    NONE = 0
    NOTE = 1
    MILD = 2
    SERIOUS = 3
    FATAL = 4


class Evidence(NamedTuple):
    """A number of the run and the threshold it was compared with.

    Attributes:
      measure: what was measured, in words.
      value: the measured value.
      relation: one of ``>``, ``>=``, ``<`` and ``<=``.
      threshold: the other side of the relation.
    """

    measure: str
    value: float
    relation: str
    threshold: float

    @property
    def holds(self) -> bool:
        """Whether the relation is true."""
        return bool(_HOLDS[self.relation](self.value, self.threshold))

    @property
    def text(self) -> str:
        """The evidence in one line."""
        value, threshold = (
            f"{one:,}" if isinstance(one, int) else f"{one:.3g}"
            for one in (self.value, self.threshold)
        )
        return f"{self.measure}: {value} (rule: {self.relation} {threshold})"


class Diagnosis(NamedTuple):
    """One finding in the record.

    Attributes:
      name: its name in the table of rules.
      severity: how bad it is.
      sentence: what it is, in words.
      evidence: the numbers behind it; each satisfies its relation.
      advice: what to do.
    """

    name: str
    severity: Severity
    sentence: str
    evidence: tuple[Evidence, ...]
    advice: str


def all_hold(evidence: tuple[Evidence, ...]) -> bool:
    """Return whether every relation is true; an unknown number (NaN) satisfies none."""
    return all(one.holds for one in evidence)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: 1 step, 2 steps."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def listed(steps: list[int], *, most: int = 5) -> str:
    """Return the first few steps as text."""
    shown = [f"{step:,}" for step in steps[:most]]
    if len(steps) > most:
        return f"{', '.join(shown)} and {len(steps) - most:,} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
