"""What rollbacks did between two readings of a log, from the counters in their states."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gradstable._src.core.find import find_all
from gradstable._src.recovery.turn import RollbackState
from gradstable._src.telemetry.event import Event
from gradstable._src.telemetry.sink import Rollback
from gradstable._src.telemetry.undone import undone_note

_PAUSED = "too many rollbacks in a row: the run is paused at the last good parameters"


class Restores(NamedTuple):
    """The counters of one rollback of one member."""

    member: str
    total: int
    step: int
    to: int
    undone: int
    undone_at: int
    paused: int


def restores(opt_state: object) -> list[Restores]:
    """Return the counters of every rollback of every member."""
    found = [state for _, state in find_all(opt_state, RollbackState)]
    numbers = [
        (one.restores, one.last_restore, one.restored_to, one.undone, one.last_undone,
         one.exhausted)
        for one in found
    ]  # fmt: skip
    every: list[Restores] = []
    for fetched in jax.device_get(numbers) if numbers else []:
        arrays = [np.asarray(number) for number in fetched]
        for member in np.ndindex(arrays[0].shape):
            name = "-".join(map(str, member))
            every.append(Restores(name, *(int(array[member]) for array in arrays)))
    return every


def events_between(
    before: Sequence[Restores], after: Sequence[Restores], *, apart: bool
) -> list[Event]:
    """Return what happened between two readings; runs not kept apart did the same."""
    found: list[Event] = []
    for old, now in zip(before, after, strict=True):
        found += _events(old, now._replace(member=now.member if apart else ""))
    return [event for number, event in enumerate(found) if event not in found[:number]]


def _events(old: Restores, now: Restores) -> Iterator[Event]:
    if now.total > old.total:
        event = Rollback(now.step, max(now.to, 1), now.total - old.total)
        row = {"step": event.step, "to": event.to, "times": event.times}
        yield Event("rolled_back", now.step, now.step, event.text, row, now.member)
    if now.undone > old.undone:
        text = undone_note(now.undone - old.undone)
        yield Event("undone", now.undone_at, now.undone_at, text, {}, now.member)
    if now.paused > old.paused:
        yield Event("paused", now.step, now.step, _PAUSED, {}, now.member)
