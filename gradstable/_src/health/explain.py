"""Say what happened, in sentences."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradstable._src.core.find import find_all, slim
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.paths import Namer
from gradstable._src.core.reasons import Reason, sentence
from gradstable._src.core.types import Health
from gradstable._src.health.carriers import find_carriers
from gradstable._src.health.members import Member, Section, shape_of, tell_all
from gradstable._src.health.read import find_ledgers
from gradstable._src.health.stories import (
    TELLERS,
    in_guards,
    steps,
    tell_alarms,
    tell_recurrence,
)
from gradstable._src.telemetry.leaves import recorded_keys, recorded_namer
from gradstable._src.telemetry.state import RecordState

# More broken gradients in a row than bad batches can explain: something keeps passing them on.
_NEVER_SOUND = 20
_HINT = (
    "If this began with one bad batch, something before the guard keeps a NaN. optax.MultiSteps "
    "around a guard keeps it forever, even if a framework put it there: use "
    "gradstable.accumulate(gradstable.guard(optimizer), k) instead."
)


def explain(opt_state: object, params: object | None = None) -> str:
    """Explain in sentences what the guard did, from the numbers in an optimizer state.

    Args:
      opt_state: as for ``gs.health``. Several guards are reported one after the other, followed by
        accumulation, loss scale, recovery, and the early warnings of ``gs.record``. For a state of
        several runs (``vmap`` over seeds, replicas of ``pmap``) each member is reported by its
        index; members with the same report share it.
      params: the parameters (or gradients), to name leaves by their path. They can have more
        leaves than the guard saw (inside ``optax.masked``, or without a gradient). A leaf whose
        path is not in them is named by its position, as all are without ``params``.

    Returns:
      A few sentences, one per line.

    Raises:
      ValueError: if there is nothing to report on in the state.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> params = {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> bad = {"bias": jnp.zeros(2), "kernel": jnp.full((3, 2), jnp.inf)}
      >>> _, state = tx.update(bad, tx.init(params), params)
      >>> print(gs.explain(state, params))
      1 step: 0 accepted (0 of them clipped), 1 rejected.
      1 rejected because the gradient had NaN or infinite entries.
      The last rejection was at step 1: the gradient had NaN or infinite entries, first in
      ['kernel'].
    """
    return "\n".join(story(opt_state, params)) or "No guard, and no early warning."


def story(opt_state: object, params: object | None, *, only: Sequence[Member] = ()) -> list[str]:
    """Return the sentences of ``explain``, one per line, for all members or only some."""
    records = [one for _, one in find_all(opt_state, RecordState)]
    others = [(tell_recurrence, one) for one in in_guards(opt_state)]
    others += [(tell, slim(one)) for kind, tell in TELLERS for _, one in find_all(opt_state, kind)]
    ledgers = find_all(opt_state, Ledger) if others or records else find_ledgers(opt_state)
    namer = _namer(params, records)
    sections = []
    for place, ledger in jax.device_get(ledgers):
        title = [f"opt_state{place.removesuffix('.ledger')}:"] if len(ledgers) > 1 else []
        tell = functools.partial(_tell, title, namer)
        sections.append(Section(ledger, tell, _weight))
    broken = any(np.any(_broken_now(one.numbers)) for one in sections)
    known = [
        *(one for _, one in ledgers),
        *(one for _, one in others),
        *map(slim, records),
    ]
    axes = len(shape_of(known[0])) if known else 0
    carriers = find_carriers(opt_state, axes=axes, sums_only=not broken)
    fetched = jax.device_get([one.broken for one in carriers])
    found = [
        Section(leaves, functools.partial(one.tell, namer))
        for one, leaves in zip(carriers, fetched, strict=True)
        if np.any(leaves)
    ]
    if not found and not any(one.is_sum for one in carriers):
        sections = [one._replace(tell=functools.partial(_with_hint, one.tell)) for one in sections]
    numbers = jax.device_get([one for _, one in others])
    sections += found
    sections += [Section(one, tell) for (tell, _), one in zip(others, numbers, strict=True)]
    sections += [_alarms(one, _namer(params, [one])) for one in records]
    return tell_all(sections, only=only)


def _namer(params: object | None, records: Sequence[RecordState]) -> Namer:
    return recorded_namer(records[0]) if params is None and records else Namer(params)


def _alarms(record: RecordState, namer: Namer) -> Section:
    keys = recorded_keys(record)

    def tell(record: Any) -> list[str]:
        return tell_alarms(record.alarms, lambda leaf: namer(leaf, keys[leaf]))

    return Section(jax.device_get(slim(record)), tell)


def _weight(ledger: Ledger) -> int:
    return int(ledger.consecutive_rejected)


def _broken_now(ledger: Ledger) -> Any:
    broken = np.asarray(ledger.last_rejection.reason) == Reason.NONFINITE
    return (np.asarray(ledger.consecutive_rejected) > 0) & broken


def _with_hint(tell: Any, ledger: Ledger) -> list[str]:
    run, broken = int(ledger.consecutive_rejected), ledger.rejected_by[Reason.NONFINITE]
    if run < _NEVER_SOUND or broken < run or not _broken_now(ledger):
        return tell(ledger)
    return [*tell(ledger), _HINT]


def _tell(title: list[str], namer: Namer, ledger: Ledger) -> list[str]:
    health = ledger.health
    lines = [
        *title,
        f"{steps(int(health.count))}: {health.accepted} accepted "
        f"({health.clipped} of them clipped), {health.rejected} rejected{_tell_idle(health)}.",
    ]
    for deed, totals in (("rejected", ledger.rejected_by), ("clipped", ledger.clipped_by)):
        lines += [
            f"{totals[code]} {deed} because {sentence(code)}." for code in np.flatnonzero(totals)
        ]
    if health.last_rejected >= 0:
        lines.append(_tell_last_rejection(ledger, namer))
    if health.consecutive_rejected > 1:
        lines.append(f"The last {health.consecutive_rejected} steps were all rejected.")
    return lines


def _tell_idle(health: Health) -> str:
    """Mention calls without a verdict: they returned the run to a copy, or paused."""
    idle = int(health.count) - int(health.accepted) - int(health.rejected)
    return f", {idle} held by rollback" if idle > 0 else ""


def _tell_last_rejection(ledger: Ledger, namer: Namer) -> str:
    last = ledger.last_rejection
    text = f"The last rejection was at step {ledger.last_rejected}: {sentence(last.reason)}"
    if last.worst_leaf < 0:
        return f"{text}."
    leaf = namer(int(last.worst_leaf), int(last.leaf_key))
    if last.reason == Reason.NONFINITE:
        return f"{text}, first in {leaf}."
    limit = f", threshold {last.norm_limit:.3g}" if np.isfinite(last.norm_limit) else ""
    return f"{text} (norm {last.grad_norm:.3g}{limit}), largest in {leaf}."
