"""What happened, in words: one row for each stretch of steps with the same outcome."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, overload

import numpy as np

from gradstable._src.core.reasons import Reason, sentence
from gradstable._src.report.numbers import plain_short
from gradstable._src.report.summary import broken_steps, leaf_name
from gradstable._src.telemetry.fields import ALARM_SENTENCES, Alarm, which_part
from gradstable._src.telemetry.run import Note, Run

MOST_ROWS = 200
# If there are too many events, the last of these are left out first.
_RANK = ("rollback", "not recorded", "rejected", "not finite", "note", "alarm", "clipped")
_MARKS = {
    "rejected": ("cross", "bad"),
    "clipped": ("ring", "warn"),
    "not finite": ("square", "bad"),
    "alarm": ("triangle", "bad"),
    "rollback": ("upright", "note"),
    "note": ("point", "soft"),
    "not recorded": ("hatch", "soft"),
}


class Event(NamedTuple):
    """One stretch of steps, and what happened to them.

    Attributes:
      first: its first step.
      last: its last one.
      kind: a word, one of ``_RANK``.
      text: a sentence without a period.
      leaf: the leaf it was about, or "".
    """

    first: int
    last: int
    kind: str
    text: str
    leaf: str = ""

    @property
    def steps(self) -> str:
        """The steps as text."""
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,}–{self.last:,}"

    @property
    def mark(self) -> tuple[str, str]:
        """The shape and color of the kind in charts."""
        return _MARKS[self.kind]


class _Kind(NamedTuple):
    """All events of one kind, not yet in words."""

    name: str
    first: np.ndarray  # int64 [k], steps
    tell: Callable[[int], Event]


class Events(Sequence[Event]):
    """All events of a run, in order; each is put into words when it is accessed."""

    def __init__(self, kinds: Sequence[_Kind]) -> None:
        number = [len(one.first) for one in kinds]
        first = np.concatenate([one.first for one in kinds])
        rank = np.repeat([_RANK.index(one.name) for one in kinds], number)
        self._tell = [one.tell for one in kinds]
        order = np.lexsort((rank, first))
        self._kind = np.repeat(np.arange(len(kinds)), number)[order]
        self._place = np.concatenate([np.arange(one) for one in number])[order]
        self.rank = rank[order]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.rank)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        """Return one event in words."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._tell[self._kind[index]](int(self._place[index]))


def events(run: Run) -> Events:
    """Return all events, in order."""
    return Events(
        [
            _verdicts(run, run.rejected, "rejected"),
            _verdicts(run, run.clipped, "clipped"),
            _broken(run),
            _alarms(run),
            *_notes(run),
            _lost(run),
        ]
    )


def most_telling(found: Events, *, most: int = MOST_ROWS) -> list[Event]:
    """Return at most this many events, in order; of a kind that is cut, keep the first ones."""
    kept = np.argsort(found.rank, kind="stable")[:most]
    return [found[int(place)] for place in np.sort(kept)]


def reasons(run: Run) -> list[tuple[str, int, int]]:
    """Return the text of each reason, and how many steps were rejected and clipped for it."""
    rejected, cut = run.rejected, run.clipped
    codes = sorted(set(run.reason[rejected | cut].tolist()))
    rows = [
        (sentence(code), int((here & rejected).sum()), int((here & cut).sum()))
        for code in codes
        for here in [run.reason == code]
    ]
    return sorted(rows, key=lambda row: row[1:], reverse=True)


def _verdicts(run: Run, where: np.ndarray, kind: str) -> _Kind:
    begin, end = _stretches(run, where, run.reason, run.worst_leaf, run.micro_batch, run.device)

    def tell(place: int) -> Event:
        row, last = int(begin[place]), int(end[place])
        reason, leaf = int(run.reason[row]), int(run.worst_leaf[row])
        part = which_part({"micro_batch": run.micro_batch[row], "device": run.device[row]})
        which = "first in" if reason == Reason.NONFINITE else "largest in"
        return Event(
            first=int(run.step[row]),
            last=int(run.step[last]),
            kind=kind,
            text=f"{sentence(reason)}{_norm(run, slice(row, last + 1))}{part}",
            leaf=f"{which} {leaf_name(run, leaf)}" if leaf >= 0 else "",
        )

    return _Kind(kind, run.step[begin], tell)


def _broken(run: Run) -> _Kind:
    begin, end = _stretches(run, broken_steps(run))
    text = "the loss or the gradient was not finite, but the step was not rejected"

    def tell(place: int) -> Event:
        return Event(int(run.step[begin[place]]), int(run.step[end[place]]), "not finite", text)

    return _Kind("not finite", run.step[begin], tell)


def _alarms(run: Run) -> _Kind:
    begin, end = _stretches(run, run.alarms > 0, run.alarms)

    def tell(place: int) -> Event:
        row = int(begin[place])
        bits, leaf = int(run.alarms[row]), int(run.rms_leaf[row])
        texts = [text for alarm, text in ALARM_SENTENCES.items() if bits & alarm]
        return Event(
            first=int(run.step[row]),
            last=int(run.step[end[place]]),
            kind="alarm",
            text="; ".join(texts) or f"an unknown alarm ({bits})",
            # The update ratio does not belong to a leaf.
            leaf=f"largest in {leaf_name(run, leaf)}" if leaf >= 0 and bits & Alarm.RMS else "",
        )

    return _Kind("alarm", run.step[begin], tell)


def _notes(run: Run) -> list[_Kind]:
    back = [Note(event.step, event.text) for event in run.rollbacks]
    return [_written("rollback", back), _written("note", run.notes)]


def _written(kind: str, notes: Sequence[Note]) -> _Kind:
    def tell(place: int) -> Event:
        step, text = notes[place]
        return Event(step, step, kind, text)

    return _Kind(kind, np.array([note.step for note in notes], np.int64), tell)


def _lost(run: Run) -> _Kind:
    text = "overwritten before they were read, or not written"

    def tell(place: int) -> Event:
        return Event(*run.lost[place], "not recorded", text)

    return _Kind("not recorded", np.array([first for first, _ in run.lost], np.int64), tell)


def _stretches(run: Run, where: np.ndarray, *same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last rows of stretches of neighboring, equal steps."""
    rows = np.flatnonzero(where)
    if not rows.size:
        return rows, rows
    cut = np.diff(run.step[rows]) != 1
    for values in same:
        cut |= np.diff(values[rows]) != 0
    edges = np.flatnonzero(cut)
    return rows[np.append(0, edges + 1)], rows[np.append(edges, len(rows) - 1)]


def _norm(run: Run, rows: slice) -> str:
    norms = run.grad_norm[rows]
    norms = norms[np.isfinite(norms)]
    if not norms.size:
        return ""
    up_to = "up to " if rows.stop - rows.start > 1 else ""
    # The norm was compared with the threshold before these steps moved it.
    threshold = float(run.threshold[rows.start])
    limit = f", threshold {plain_short(threshold)}" if np.isfinite(threshold) else ""
    return f" (norm {up_to}{plain_short(float(norms.max()))}{limit})"
