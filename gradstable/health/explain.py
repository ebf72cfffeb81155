"""Say what happened, in sentences; raise when the run cannot go on."""

from collections.abc import Sequence

import jax
import numpy as np

from gradstable._core.checks import check_number
from gradstable._core.find import find_all
from gradstable._core.ledger import Ledger
from gradstable._core.paths import leaf_paths
from gradstable._core.reasons import Reason, sentence
from gradstable.health.read import find_ledgers
from gradstable.precision.loss_scale import LossScaleState
from gradstable.recovery.accumulate import AccumulateState
from gradstable.telemetry.alarms import AlarmState
from gradstable.telemetry.fields import ALARM_SENTENCES, Alarm
from gradstable.telemetry.state import RecordState


class TrainingDiverged(RuntimeError):
    """The run cannot go on; the message says when, why and where it broke."""


def explain(opt_state: object, params: object | None = None) -> str:
    """Tell in sentences what the guard did, from the numbers in an optimizer state.

    Args:
      opt_state: as for ``gs.health``; several guards are told of one after the other, and after
        them the early warnings of ``gs.record``.
      params: the parameters (or gradients), so that leaves are named by their path. Without
        them a leaf is named by its position in tree order.

    Returns:
      A few sentences, one a line.

    Raises:
      ValueError: if there is neither a guard nor a recorder in the state.

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
    records = find_all(opt_state, RecordState)
    alarms = jax.device_get([record.alarms for _, record in records])
    gathered = jax.device_get(find_all(opt_state, AccumulateState))
    scales = jax.device_get(find_all(opt_state, LossScaleState))
    others = records or gathered
    ledgers = jax.device_get(find_ledgers(opt_state) if not others or _judged(opt_state) else [])
    paths = None if params is None else leaf_paths(params)
    story: list[str] = []
    for place, ledger in ledgers:
        title = [f"opt_state{place}:"] if len(ledgers) > 1 else []
        story += [*title, *_tell(ledger, paths)]
    for _, one in gathered:
        story += _tell_dropped(one)
    for _, one in scales:
        story += _tell_scale(one)
    for one in alarms:
        story += _tell_alarms(one, paths)
    return "\n".join(story) or "No guard, and no early warning."


def check(opt_state: object, params: object | None = None, *, patience: int = 200) -> None:
    """Raise ``TrainingDiverged`` when so many steps in a row were rejected that no more come.

    A guard never gives up: it holds the last good parameters for as long as it takes. This
    is how the loop around it learns that it waits in vain. Call it every few hundred steps;
    it fetches a few scalars. Parameters and state are intact when it raises.

    Args:
      opt_state: as for ``gs.health``; every guard in it is checked.
      params: as for ``gs.explain``.
      patience: rejected steps in a row that are still normal, >= 1. Default 200: the default
        rule releases a change of level by a factor of 1000 after 137 steps at most.

    Raises:
      TrainingDiverged: with what ``gs.explain`` says.
      ValueError: if there is no guard in the state, or ``patience`` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> gs.check(tx.init(jnp.ones(2)))
    """
    check_number("patience", patience, at_least=1)
    for _, ledger in jax.device_get(find_ledgers(opt_state)):
        run = int(ledger.health.consecutive_rejected)
        if run >= patience:
            msg = (
                f"training cannot go on: the last {run} steps were all rejected.\n"
                f"{explain(opt_state, params)}\n"
                "Parameters and optimizer state are those of the last good step. Look at the "
                "data and the loss of this step, lower the learning rate, or go back to a "
                "checkpoint."
            )
            raise TrainingDiverged(msg)


def _judged(opt_state: object) -> bool:
    return bool(find_all(opt_state, Ledger))


def _tell(ledger: Ledger, paths: Sequence[str] | None) -> list[str]:
    health = ledger.health
    story = [
        f"{_steps(int(health.count))}: {health.accepted} accepted "
        f"({health.clipped} of them clipped), {health.rejected} rejected."
    ]
    for deed, totals in (("rejected", ledger.rejected_by), ("clipped", ledger.clipped_by)):
        story += [
            f"{totals[code]} {deed} because {sentence(code)}." for code in np.flatnonzero(totals)
        ]
    if health.last_rejected >= 0:
        story.append(_tell_last_rejection(ledger, paths))
    if health.consecutive_rejected > 1:
        story.append(f"The last {health.consecutive_rejected} steps were all rejected.")
    return story


def _tell_last_rejection(ledger: Ledger, paths: Sequence[str] | None) -> str:
    last = ledger.last_rejection
    leaf = _leaf_name(int(last.worst_leaf), paths)
    told = f"The last rejection was at step {ledger.health.last_rejected}: {sentence(last.reason)}"
    if last.reason == Reason.NONFINITE:
        return f"{told}, first in {leaf}."
    limit = f", threshold {last.threshold:.3g}" if np.isfinite(last.threshold) else ""
    return f"{told} (norm {last.grad_norm:.3g}{limit}), largest in {leaf}."


def _tell_dropped(state: AccumulateState) -> list[str]:
    totals = state.dropped.by_reason
    return [
        f"{totals[code]} of {state.count} micro-batches {'was' if totals[code] == 1 else 'were'} "
        f"left out because {sentence(code)}."
        for code in np.flatnonzero(totals)
    ]


def _tell_scale(state: LossScaleState) -> list[str]:
    told = f"The loss scale is {state.scale:.6g}"
    if not state.overflows:
        return [f"{told}, without an overflow."]
    often = _overflows(int(state.overflows))
    return [f"{told}, after {often}, the last in call {state.last_overflow}."]


def _overflows(number: int) -> str:
    return "1 overflow" if number == 1 else f"{number} overflows"


def _steps(number: int) -> str:
    return f"{number} step" if number == 1 else f"{number} steps"


def _leaf_name(index: int, paths: Sequence[str] | None) -> str:
    if paths is not None and 0 <= index < len(paths):
        return paths[index]
    return f"leaf {index} (pass params to see its name)"


def _tell_alarms(alarms: AlarmState, paths: Sequence[str] | None) -> list[str]:
    return [
        f"{_warnings(int(warned.total))} that {ALARM_SENTENCES[alarm]}, the last at step "
        f"{warned.step}: {warned.value:.3g}, usually {warned.usual:.2g}"
        + (f", in {_leaf_name(int(warned.leaf), paths)}." if warned.leaf >= 0 else ".")
        for alarm, warned in ((Alarm.RMS, alarms.rms), (Alarm.UPDATE_RATIO, alarms.ratio))
        if warned.total
    ]


def _warnings(number: int) -> str:
    return "1 early warning" if number == 1 else f"{number} early warnings"
