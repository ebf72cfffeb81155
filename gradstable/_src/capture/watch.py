"""Read from the state which steps went wrong since the last reading, in one transfer."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstable._src.core.find import find_all, state_in
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.reasons import sentence
from gradstable._src.core.tree_checks import first_deleted
from gradstable._src.guard import GuardState
from gradstable._src.recovery.turn import RollbackState
from gradstable._src.telemetry.fields import ALARM_SENTENCES, FIELDS, NUMBERS
from gradstable._src.telemetry.state import RecordState

REJECTED, CLIPPED, DIVERGING = "rejected", "clipped", "diverging"
_SCALE, _ALARMS = FIELDS.index("scale"), FIELDS.index("alarms")
_NOT_KEPT = "the reason is not known: put gs.record around the optimizer to keep that of every step"


class Event(NamedTuple):
    """A step that went wrong.

    Attributes:
      kind: ``"rejected"``, ``"clipped"`` or ``"diverging"``.
      call: its number among the calls that its source has seen.
      reason: why, as a clause.
      numbers: what is known of it: the loss, the norm of the gradient, ...
      span: the first and last call of the loop that it belongs to, numbered from 1.
      unchanged: whether nothing has changed from the begin of that step to the reading.
    """

    kind: str
    call: int
    reason: str
    numbers: Mapping[str, float]
    span: tuple[int, int] = (0, 0)
    unchanged: bool = False


class _Place(NamedTuple):
    """How the calls of a source between two readings belong to those of the loop."""

    before: int
    now: int
    first: int
    last: int
    unchanged: int  # how many calls of a guard at the end have changed nothing

    def of(self, event: Event) -> Event:
        """Return an event with what is known of its place."""
        # A call can make several steps, as in a scan, or a step can take several calls.
        made, seen = self.last - self.first, self.now - self.before
        begin = self.first + (event.call - 1 - self.before) * made // seen + 1
        end = self.first - (self.before - event.call) * made // seen
        unchanged = event.kind == REJECTED and self.now - event.call < self.unchanged
        return event._replace(span=(begin, end), unchanged=unchanged and made >= seen)


class _Plan(NamedTuple):
    """Which leaves of the state are read; each tree has their numbers."""

    structure: Any
    records: Any
    ledgers: Any
    rollbacks: Any
    guards: Any


class Watch:
    """Reads states of the same run, one after the other.

    Args:
      clipped_below: the factor on the gradient below which a step counts as clipped hard.
    """

    def __init__(self, *, clipped_below: float) -> None:
        self._clipped_below = clipped_below
        self._plan: _Plan | None = None
        self._seen: dict[str, tuple[int, int]] = {}  # calls of a source, and of the loop

    def capacity(self, opt_state: Any) -> float:
        """Return how many calls a state can tell of: 0 if there is nothing to be read in it."""
        plan = self._planned(opt_state)
        if not plan.records:
            return math.inf if plan.ledgers or plan.rollbacks else 0
        leaves = jax.tree.leaves(state_in(opt_state))
        return min(_value(leaves[one.rows]).shape[-2] for one in plan.records.values())

    def read(self, opt_state: Any, number: int) -> list[Event]:
        """Return which steps went wrong up to this state, that after a number of calls, in order.

        A state that was donated, as to a step that failed, tells nothing.
        """
        plan = self._planned(opt_state)
        leaves = jax.tree.leaves(state_in(opt_state))
        wanted = jax.tree.map(lambda place: _value(leaves[place]), tuple(plan[1:]))
        if first_deleted(wanted) is not None:
            return []
        records, ledgers, rollbacks, guards = jax.device_get(wanted)
        unchanged = min((int(np.min(run)) for run in guards), default=0)
        sources: list[tuple[Any, str, Any, Any]] = []
        sources += [(self._in_rows, key, one.calls, one.rows) for key, one in records.items()]
        sources += [(self._in_ledger, key, one.calls, one) for key, one in ledgers.items()]
        sources += [(_in_rollback, key, one.calls, one) for key, one in rollbacks.items()]
        found: list[Event] = []
        for find, key, calls, source in sources:
            now = int(np.max(calls))
            # At the first reading, one call was made, or the state is that before the first step.
            # What it knows of earlier calls is old.
            start = (now - 1, 0) if now else (now, number)
            before, seen = self._seen.setdefault(key, start)
            if now > before:
                self._seen[key] = now, number
                place = _Place(before, now, seen, number, unchanged)
                found += map(place.of, find(source, before, now))
        return sorted(found, key=lambda event: event.span)

    def _in_rows(self, rows: np.ndarray, before: int, now: int) -> list[Event]:
        capacity = rows.shape[-2]
        calls = np.arange(max(before, now - capacity) + 1, now + 1)
        window = rows.reshape(-1, *rows.shape[-2:])[:, (calls - 1) % capacity]
        factors, alarms = window[..., _SCALE].min(axis=0), window[..., _ALARMS].max(axis=0)
        found: list[Event] = []
        touched = (factors == 0) | ((factors > 0) & (factors < self._clipped_below))
        for place in np.flatnonzero(touched | (alarms > 0)):
            # Of several members, the one that is worst off.
            member = np.lexsort((-window[:, place, _ALARMS], window[:, place, _SCALE]))[0]
            row = dict(zip(FIELDS, window[member, place].tolist(), strict=True))
            numbers = {name: row[name] for bit, name in enumerate(NUMBERS)
                       if int(row["known"]) >> bit & 1}  # fmt: skip
            call, kind = int(calls[place]), self._kind(row["scale"])
            if kind:
                found.append(Event(kind, call, sentence(row["reason"]), numbers))
            elif place == 0 or not alarms[place - 1]:  # the first of several in a row
                why = [text for bit, text in ALARM_SENTENCES.items() if int(row["alarms"]) & bit]
                found.append(Event(DIVERGING, call, " and ".join(why), numbers))
        return found

    def _in_ledger(self, ledger: Ledger, before: int, now: int) -> list[Event]:
        worst = int(np.argmax(np.ravel(ledger.last_rejected)))

        def of(number: Any) -> float:
            return np.ravel(number)[worst].item()

        found: list[Event] = []
        last, rejection = int(of(ledger.last_rejected)), ledger.last_rejection
        if last > before:
            run = int(of(ledger.consecutive_rejected)) if last == now else 1
            found += [Event(REJECTED, call, _NOT_KEPT, {})
                      for call in range(max(before + 1, last - run + 1), last)]  # fmt: skip
            numbers = _numbers(of(rejection.grad_norm), of(rejection.norm_limit), 0.0)
            found.append(Event(REJECTED, last, sentence(of(rejection.reason)), numbers))
        factor = of(ledger.grad_factor)
        if last != now and self._kind(factor):
            numbers = _numbers(of(ledger.grad_norm), of(ledger.norm_limit), factor)
            found.append(Event(CLIPPED, now, sentence(of(ledger.reason)), numbers))
        return found

    def _kind(self, factor: float) -> str:
        if factor == 0:
            return REJECTED
        return CLIPPED if 0 < factor < self._clipped_below else ""

    def _planned(self, opt_state: Any) -> _Plan:
        """Find once what is read; looking through a large state takes long."""
        state = state_in(opt_state)
        structure = jax.tree.structure(state)
        if self._plan is None or self._plan.structure != structure:
            numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
            records = find_all(numbered, RecordState)
            self._plan = _Plan(
                structure=structure,
                records={key: _Rows(one.calls, one.rows) for key, one in records},
                # The recorder knows all that ledgers do, and of every step.
                ledgers={} if records else dict(find_all(numbered, Ledger)),
                rollbacks={key: _Rollback(one.calls, one.last_restore, one.reason)
                           for key, one in find_all(numbered, RollbackState)},
                guards=[one.ledger.consecutive_rejected
                        for _, one in find_all(numbered, GuardState)],
            )  # fmt: skip
        return self._plan


class _Rows(NamedTuple):
    calls: Any
    rows: Any


class _Rollback(NamedTuple):
    calls: Any
    last_restore: Any
    reason: Any


def _numbers(grad_norm: float, threshold: float, scale: float) -> Mapping[str, float]:
    return {"grad_norm": grad_norm, "threshold": threshold, "scale": scale}


def _in_rollback(state: _Rollback, before: int, now: int) -> list[Event]:
    del now
    last = int(np.max(state.last_restore))
    if last <= before:
        return []
    which = int(np.argmax(np.ravel(state.last_restore)))
    why = sentence(np.ravel(state.reason)[which])
    return [Event(DIVERGING, last, f"the run rolled back: {why}", {})]


def _value(leaf: Any) -> Any:
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf
