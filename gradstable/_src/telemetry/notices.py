"""Warn during a run that a steady share of its steps is rejected or clipped to the usual size."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.fields import member_of
from gradstable._src.telemetry.patterns import (
    MOST_RECENT,
    Judged,
    Shape,
    causes,
    patterns,
    sentence_of,
)

_COLUMNS = {
    "step": 0,
    "grad_norm": float("nan"),
    "scale": float("nan"),
    "reason": 0,
    "worst_leaf": -1,
}


class Notices:
    """Follow the rows of a log, and tell of each cause at most once in 1,000 steps."""

    def __init__(self) -> None:
        self._rows: dict[str, deque[tuple[Any, ...]]] = {}
        self._told: dict[tuple[str, int], int] = {}

    def told(self, member: str, reason: int, step: int) -> bool:
        """Return whether it is told of a step, or of one shortly before, that this recurs."""
        at = self._told.get((member, int(causes(np.asarray(reason)))))
        return at is not None and step - at < MOST_RECENT

    def after(self, rows: Sequence[Mapping[str, Any]], leaves: Sequence[str]) -> list[Event]:
        """Return what to tell after these rows.

        Args:
          rows: what a sink receives, also of several members.
          leaves: the paths of the leaves.
        """
        found: list[Event] = []
        newest = {member_of(row): row for row in rows}
        for row in rows:
            kept = self._rows.setdefault(member_of(row), deque(maxlen=MOST_RECENT))
            kept.append(tuple(row.get(name, without) for name, without in _COLUMNS.items()))
        for member, row in newest.items():
            step, *others = map(np.array, zip(*self._rows[member], strict=True))
            for one in patterns(Judged(step, *others)):
                now = int(step[-1])
                if one.shape != Shape.STEADY or not one.lasts:
                    continue
                if not self.told(member, one.reason, now):
                    self._told[member, one.reason] = now
                    text = f"{sentence_of(one, leaves)}: {one.meaning}"
                    found.append(Event("recurring", now, now, text, row, member))
        return found
