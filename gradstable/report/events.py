"""What happened, in sentences: one row for each stretch of steps that had the same fate."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gradstable._core.reasons import Reason, sentence
from gradstable.report.frame import rollbacks
from gradstable.report.summary import broken_steps, leaf_name, plain_short
from gradstable.telemetry.fields import ALARM_SENTENCES, Alarm
from gradstable.telemetry.run import Run

MOST_ROWS = 200
# What is left out first, where there is too much: the last of these.
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
      text: a sentence without a full stop.
      leaf: the path of the leaf it was about, or "".
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
        """Shape and color that stand for the kind in charts."""
        return _MARKS[self.kind]


def events(run: Run) -> list[Event]:
    """Return all that happened, in order."""
    found = [*_verdicts(run, run.rejected, "rejected"), *_verdicts(run, run.clipped, "clipped")]
    found += [*_broken(run), *_alarms(run), *_notes(run)]
    found += [
        Event(first, last, "not recorded", "overwritten before they were read")
        for first, last in run.lost
    ]
    return sorted(found, key=lambda one: (one.first, _RANK.index(one.kind)))


def most_telling(found: Sequence[Event], *, most: int = MOST_ROWS) -> list[Event]:
    """Return at most so many events, in order; of a kind that has to give way, the first ones."""
    ranked = sorted(found, key=lambda one: _RANK.index(one.kind))
    return sorted(ranked[:most], key=lambda one: (one.first, _RANK.index(one.kind)))


def reasons(run: Run) -> list[tuple[str, int, int]]:
    """Return for each reason its sentence, and the steps rejected and clipped for it."""
    rejected, cut = run.rejected, run.clipped
    codes = sorted(set(run.reason[rejected | cut].tolist()))
    rows = [
        (sentence(code), int((here & rejected).sum()), int((here & cut).sum()))
        for code in codes
        for here in [run.reason == code]
    ]
    return sorted(rows, key=lambda row: row[1:], reverse=True)


def _verdicts(run: Run, where: np.ndarray, kind: str) -> Iterator[Event]:
    def same(row: int) -> object:
        return run.reason[row], run.worst_leaf[row]

    for rows in _stretches(run, where, same):
        reason, leaf = int(run.reason[rows[0]]), int(run.worst_leaf[rows[0]])
        told = "first in" if reason == Reason.NONFINITE else "largest in"
        yield Event(
            first=int(run.step[rows[0]]),
            last=int(run.step[rows[-1]]),
            kind=kind,
            text=f"{sentence(reason)}{_norm(run, rows)}",
            leaf=f"{told} {leaf_name(run, leaf)}" if leaf >= 0 else "",
        )


def _broken(run: Run) -> Iterator[Event]:
    text = "loss or gradient was not finite, and the step was not rejected"
    for rows in _stretches(run, broken_steps(run)):
        yield Event(int(run.step[rows[0]]), int(run.step[rows[-1]]), "not finite", text)


def _alarms(run: Run) -> Iterator[Event]:
    for rows in _stretches(run, run.alarms > 0, lambda row: run.alarms[row]):
        bits = int(run.alarms[rows[0]])
        told = [text for alarm, text in ALARM_SENTENCES.items() if bits & alarm]
        leaf = int(run.rms_leaf[rows[0]])
        yield Event(
            first=int(run.step[rows[0]]),
            last=int(run.step[rows[-1]]),
            kind="alarm",
            text="; ".join(told) or f"an alarm without a name ({bits})",
            # The update ratio is of no leaf.
            leaf=f"largest in {leaf_name(run, leaf)}" if leaf >= 0 and bits & Alarm.RMS else "",
        )


def _notes(run: Run) -> Iterator[Event]:
    back = set(rollbacks(run))
    for note in run.notes:
        went_back = note.step in back and note.text.lower().startswith("rollback")
        yield Event(note.step, note.step, "rollback" if went_back else "note", note.text)


def _stretches(
    run: Run, where: np.ndarray, same: Callable[[int], object] = lambda _: None
) -> Iterator[list[int]]:
    """Yield rows of neighboring steps that are alike."""
    rows: list[int] = []
    for row in np.flatnonzero(where).tolist():
        alike = rows and run.step[row] == run.step[rows[-1]] + 1 and same(row) == same(rows[-1])
        if rows and not alike:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _norm(run: Run, rows: list[int]) -> str:
    norms = run.grad_norm[rows]
    norms = norms[np.isfinite(norms)]
    if not norms.size:
        return ""
    up_to = "up to " if len(rows) > 1 else ""
    # What the norm is to be held against is the threshold before these steps moved it.
    threshold = run.threshold[rows[0]]
    limit = f", threshold {plain_short(threshold)}" if np.isfinite(threshold) else ""
    return f" (norm {up_to}{plain_short(float(norms.max()))}{limit})"
