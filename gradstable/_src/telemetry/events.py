"""Find events in the rows of a log: each episode once, however many readings it spans."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from gradstable._src.core.reasons import sentence
from gradstable._src.telemetry.event import Event, EventKind
from gradstable._src.telemetry.fields import ALARM_SENTENCES, member_of, which_part
from gradstable._src.telemetry.notices import Notices
from gradstable._src.telemetry.patterns import GAP, MOST_RECENT

# As many rejections in a row as gs.check allows by default.
_MOST_REJECTED, _REJECTED = 200, "the last {} steps were all rejected"
# A NaN that an update brings into the parameters stays there, unless gs.rollback removes it, which
# waits for 12 steps. A NaN in a gradient alone may be thrown away (optax.apply_if_finite), and the
# update is infinitely large relative to parameters that are zero.
_MOST_BROKEN, _BROKEN = 20, "gradients and updates have been NaN or infinite for {} steps"


class _Sign(NamedTuple):
    kind: EventKind
    cause: int
    text: str


_Key: TypeAlias = tuple[str, EventKind, int]


class _Episode(NamedTuple):
    told: int
    latest: int

    def goes_on(self, step: int) -> bool:
        """Return whether a step belongs to it, and is no news yet."""
        return step - self.latest < GAP and step - self.told < MOST_RECENT


class Events:
    """Follow the rows of a log, and tell of each episode once.

    Steps with the same cause belong to one episode if they are closer together than four steps, as
    in the report; one that goes on is reported again after 1,000 steps. Once a steady share has
    been reported, its single steps are no news.
    """

    def __init__(self) -> None:
        self._notices = Notices()
        self._episodes: dict[_Key, _Episode] = {}
        self._in_a_row: dict[tuple[str, str], int] = {}

    def after(self, rows: Sequence[Mapping[str, Any]], leaves: Sequence[str]) -> list[Event]:
        """Return the events of these rows that have not been told, in order of their steps.

        Args:
          rows: what a sink receives, also of several members.
          leaves: the paths of the leaves.
        """
        found = self._notices.after(rows, leaves)
        here: dict[_Key, int] = {}  # which of those found is of this episode
        for row in rows:
            step, member = row["step"], member_of(row)
            for sign in _signs(row, leaves):
                key = member, sign.kind, sign.cause
                known = self._episodes.get(key)
                if known is not None and known.goes_on(step):
                    self._episodes[key] = known._replace(latest=step)
                    if key in here:
                        found[here[key]] = found[here[key]]._replace(last=step)
                    continue
                self._episodes[key] = _Episode(told=step, latest=step)
                here.pop(key, None)
                if sign.kind != "rejected" or not self._notices.told(member, sign.cause, step):
                    here[key] = len(found)
                    found.append(Event(sign.kind, step, step, sign.text, row, member))
            found += self._lost(row, member)
        return sorted(found, key=lambda event: event.step)

    def _lost(self, row: Mapping[str, Any], member: str) -> Iterator[Event]:
        """Yield that the run has diverged, at the step at which that is certain."""
        gradient, loss, update = (
            not math.isfinite(row.get(name, 0.0)) for name in ("grad_norm", "loss", "update_ratio")
        )
        for what, now, most, text in (
            ("rejected", row.get("scale") == 0, _MOST_REJECTED, _REJECTED),
            ("broken", (gradient or loss) and update, _MOST_BROKEN, _BROKEN),
        ):
            key = member, what
            self._in_a_row[key] = self._in_a_row.get(key, 0) + 1 if now else 0
            if self._in_a_row[key] == most:
                step = row["step"]
                yield Event("diverged", step, step, text.format(most), row, member)


def _signs(row: Mapping[str, Any], leaves: Sequence[str]) -> Iterator[_Sign]:
    if row.get("scale") == 0:
        leaf, reason = row.get("worst_leaf", -1), row.get("reason", 0)
        place = f", in {leaves[leaf]}" if 0 <= leaf < len(leaves) else ""
        yield _Sign("rejected", reason, f"rejected: {sentence(reason)}{place}{which_part(row)}")
    bits = row.get("alarms", 0)
    for alarm, text in ALARM_SENTENCES.items():
        if bits & alarm:
            yield _Sign("early_warning", int(alarm), f"early warning: {text}")
