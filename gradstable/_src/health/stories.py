"""Reports of states other than the guard's: accumulation, loss scale, recovery, recorder."""

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

import numpy as np

from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.parts import FEWEST, Outlier
from gradstable._src.core.reasons import sentence
from gradstable._src.precision.loss_scale import LossScaleState
from gradstable._src.rate.govern import GovernState
from gradstable._src.recovery.accumulate import AccumulateState
from gradstable._src.recovery.backoff import BackoffState
from gradstable._src.recovery.hygiene import MomentHygieneState
from gradstable._src.recovery.turn import RollbackState
from gradstable._src.rules.ema_multiple import EmaMultipleState
from gradstable._src.rules.log_mad import LogMadState
from gradstable._src.rules.loss_spike import LossSpikeState, usual_level
from gradstable._src.rules.recurrence import MEMORY, share_let_in
from gradstable._src.sharding.average import AverageState
from gradstable._src.telemetry.alarms import AlarmState
from gradstable._src.telemetry.fields import ALARM_SENTENCES, Alarm

# From the fetched numbers of a state to sentences.
Teller: TypeAlias = Callable[[Any], list[str]]


def steps(number: int) -> str:
    """Return a number of steps in words."""
    return f"{number} step" if number == 1 else f"{number} steps"


# Below this share of recent gradients, what comes back is not worth a word.
_WORTH_TELLING = 0.01
# From how many median deviations on a loss is far above the median; the rule rejects from 9 on.
_FAR = 4.0


# The states of rules that let in what keeps coming back.
Recurring: TypeAlias = LogMadState | EmaMultipleState | LossSpikeState


def in_guards(opt_state: object) -> list[Recurring]:
    """Return the states of such rules in guards; an alarm has rules of its own."""
    guards = {path.removesuffix("ledger") for path, _ in find_all(opt_state, Ledger)}
    return [
        state
        for kind in get_args(Recurring)
        for path, state in find_all(opt_state, kind)
        if path[: path.rfind("rule_state")] in guards
    ]


def share_recurring(state: Recurring) -> Any:
    """Return the share of norms, or losses, far above the usual ones, for every member."""
    share = share_let_in(state.recurrence, usual_log(state))
    if isinstance(state, LossSpikeState):
        # Levels are relative to the median of their time, which may have risen for good since.
        above = np.asarray(state.last_far) - np.asarray(state.loss_center)
        share = np.where(above > _FAR * np.asarray(state.loss_spread), share, 0.0)
    return share


def usual_log(state: Recurring) -> Any:
    """Return the log of what is usual, for every member."""
    if isinstance(state, LogMadState):
        return state.log_center
    if isinstance(state, LossSpikeState):
        return usual_level(state.loss_spread, np)
    return np.log(np.maximum(np.asarray(state.mean_norm), np.finfo(np.float32).tiny))


def recurs(state: Recurring) -> Any:
    """Return whether that is worth a word, for every member."""
    return share_recurring(state) >= _WORTH_TELLING


def tell_recurrence(state: Recurring) -> list[str]:
    """Report a steady share of gradients, or losses, far above the usual ones."""
    if not recurs(state):
        return []
    share = 100 * share_recurring(state)
    if isinstance(state, LossSpikeState):
        return [
            f"Of the last {MEMORY:,} losses or so, {share:.2g} % were far above the usual loss, "
            "again and again: a task or a kind of batch, or broken labels. Their gradients are "
            "scaled down, or rejected by gradstable.rules.loss_spike(reject_recurring=True)."
        ]
    rule = "log_mad" if isinstance(state, LogMadState) else "ema_multiple"
    return [
        f"Of the last {MEMORY:,} gradients or so, {share:.2g} % were far above "
        "the usual norm, again and again: a task or a kind of batch, or a broken reader. They are "
        f"clipped to it, or rejected by gradstable.rules.{rule}(reject_recurring=True). If they "
        "belong to a task or a part of the data, balance the losses: divide each by its usual "
        "size. If they are faults, repair the reader. Of a run with gradstable.record and a log, "
        "gradstable doctor tells their level and their leaf."
    ]


def _tell_dropped(state: AccumulateState) -> list[str]:
    totals = state.dropped.by_reason
    return [
        f"{totals[code]} of {state.calls} micro-batches {'was' if totals[code] == 1 else 'were'} "
        f"left out because {sentence(code)}."
        for code in np.flatnonzero(totals)
    ]


def _tell_micro_batches(state: AccumulateState) -> list[str]:
    return tell_outlier(state.outliers.at_rejection, "micro-batch", "micro-batches")


def _tell_devices(state: AverageState) -> list[str]:
    story = []
    if state.left_out:
        one = state.left_out == 1
        story.append(
            f"{state.left_out} gradient{' of a single device was' if one else 's of single '}"
            f"{'' if one else 'devices were'} left out of the mean because "
            f"{'it was' if one else 'they were'} broken, the last that of device "
            f"{state.left_out_last}."
        )
    return story + tell_outlier(state.outliers.at_rejection, "device", "devices")


def tell_outlier(found: Outlier, one: str, many: str) -> list[str]:
    """Report which part stood out at the last rejection, or that none did."""
    if not found.of_parts:
        return []
    number, index = int(found.of_parts), int(found.outlier)
    which = f"{one} {index} of 0 to {number - 1}"
    if index < 0:
        if number < FEWEST or not found.median_norm or found.broken_parts:
            return []
        times = found.highest_norm / found.median_norm
        return [
            f"At the last rejection, none of {number} {many} stood out (the largest norm was "
            f"{times:.2g} times the median): it was not a single example. Look at the parameters "
            "and the learning rate."
        ]
    if found.broken_parts:
        also = int(found.broken_parts) - 1
        others = f", and so was that of {also} more" if also else ""
        return [f"At the last rejection, the gradient of {which} was broken{others}."]
    times = found.highest_norm / found.median_norm
    return [
        f"At the last rejection, {which} stood out: its gradient norm was "
        f"{found.highest_norm:.3g}, {times:,.3g} times the median."
    ]


def _tell_scale(state: LossScaleState) -> list[str]:
    text = f"The loss scale is {state.loss_scale:.6g}"
    if not state.overflows:
        return [f"{text}, without an overflow."]
    often = _number(int(state.overflows), "overflow")
    return [f"{text}, after {often}, the last in call {state.last_overflow}."]


def _tell_rollback(state: RollbackState) -> list[str]:
    if not state.restores:
        return []
    often = "once, at" if state.restores == 1 else f"{state.restores} times, the last at"
    story = [
        f"Rolled back {often} step {state.last_restore}, to the state before step "
        f"{max(int(state.restored_to), 1)}, because {sentence(state.reason)}."
    ]
    if state.exhausted:
        story.append(
            f"The last {state.in_vain} rollbacks had no good stretch in between, so the run is "
            "paused at the last good parameters."
        )
    elif state.attempts > 1:
        story.append(f"A rollback is under way ({state.attempts} updates so far).")
    elif state.trial.tries_left > 0:
        story.append("Parameters stand still for a few losses, to see whether that has helped.")
    return story + _tell_undone(state)


def _tell_undone(state: RollbackState) -> list[str]:
    """Report returns after which the loss was no lower than before."""
    if not state.undone:
        return []
    why = "since the loss was just as high with the old parameters: the data have changed."
    if state.restores == 1:
        return [f"That was undone at step {state.last_undone}, {why}"]
    which = f"{state.undone} of the {state.restores} rollbacks"
    if state.undone == state.restores:
        which = f"All {state.restores} rollbacks"
    last = f"the last at step {state.last_undone}"
    return [f"{which} {'was' if state.undone == 1 else 'were'} undone, {last}, {why}"]


def _tell_backoff(state: BackoffState) -> list[str]:
    if not state.spikes and not state.returns:
        return []
    causes = [
        _number(int(total), what)
        for total, what in ((state.spikes, "burst of rejections"), (state.returns, "rollback"))
        if total
    ]
    return [f"Step size is at {100 * state.step_factor:.3g} %, after {' and '.join(causes)}."]


def _tell_govern(state: GovernState) -> list[str]:
    if not state.shortened:
        return []
    story = f"The trust region shortened {state.shortened} of {steps(int(state.calls))}"
    if state.step_factor < 1:
        times = f"{1 / state.step_factor:,.1f} times"
        return [
            f"{story}, the last one to {100 * state.step_factor:.2g} %: it was {times} too long."
        ]
    return [f"{story}, but not the last one."]


def _tell_hygiene(state: MomentHygieneState) -> list[str]:
    deeds = [
        f"{deed} {'once' if total == 1 else f'{total} times'}"
        for total, deed in ((state.damped, "damped"), (state.resets, "reset"))
        if total
    ]
    return [f"Moments were {' and '.join(deeds)}."] if deeds else []


def tell_alarms(alarms: AlarmState, name: Callable[[int], str]) -> list[str]:
    """Report early warnings; ``name`` gives the name of the leaf with an index."""
    return [
        f"{_number(int(warned.warnings), 'early warning')} that {ALARM_SENTENCES[alarm]}, the last "
        f"at step {warned.at_call}: {warned.seen_value:.3g}, usually {warned.usual_value:.2g}"
        + (f", in {name(int(warned.of_leaf))}." if warned.of_leaf >= 0 else ".")
        for alarm, warned in ((Alarm.RMS, alarms.rms), (Alarm.UPDATE_RATIO, alarms.ratio))
        if warned.warnings
    ]


def _number(number: int, what: str) -> str:
    plural = what.replace("burst of", "bursts of") if "burst of" in what else f"{what}s"
    return f"1 {what}" if number == 1 else f"{number} {plural}"


TELLERS: tuple[tuple[type[Any], Teller], ...] = (
    (AccumulateState, _tell_dropped),
    (AccumulateState, _tell_micro_batches),
    (AverageState, _tell_devices),
    (LossScaleState, _tell_scale),
    (RollbackState, _tell_rollback),
    (MomentHygieneState, _tell_hygiene),
    (BackoffState, _tell_backoff),
    (GovernState, _tell_govern),
)
