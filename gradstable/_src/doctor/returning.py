"""What the library itself did to a run: rollbacks that did not help, steps that it shortened."""

from gradstable._src.doctor.architecture import architecture_not_optimizer
from gradstable._src.doctor.diagnosis import Diagnosis, Evidence, Severity, counted
from gradstable._src.telemetry.returns import SMALL, Returns, returns_of, slowed
from gradstable._src.telemetry.run import Run
from gradstable._src.telemetry.shortened import ENOUGH, shortened


def rolled_back(run: Run) -> Diagnosis | None:
    """Find rollbacks by ``gs.rollback``, and say whether they helped.

    Rule: 1 rollback or more. It helped if the median loss of the 12 steps after it is at most half
    of that of the 12 steps before it. It is serious if that is so for less than half of them, or if
    there were 3 or more; and fatal if the run is paused at the end. Rollbacks that were undone do
    not count there.
    """
    back = returns_of(run)
    if back is None:
        return None
    evidence = [Evidence("rollbacks", back.times, ">=", 1)]
    if back.undone:
        evidence.append(Evidence("rollbacks that were undone", back.undone, ">=", 1))
    if back.in_vain:
        share = back.better / back.judged
        evidence.append(Evidence("share after which the loss was at most half", share, "<", 0.5))
    severity = Severity.SERIOUS if back.in_vain or back.often else Severity.MILD
    return Diagnosis(
        "rolled_back",
        Severity.FATAL if back.paused else severity,
        back.sentence,
        tuple(evidence),
        _advice(back, _cure(run)),
    )


def _cure(run: Run) -> str:
    """Say what to change where a run diverges again and again."""
    if architecture_not_optimizer(run) is not None:
        return "A lower learning rate does not help; see architecture_not_optimizer."
    backs_off = bool((run.lr_factor < 1).any())
    return (
        f"Lower the learning rate{'' if backs_off else ', as gs.backoff around gs.rollback does'}."
    )


def _advice(back: Returns, cure: str) -> str:
    look = f"Look at what happened before step {back.first:,}: the batches, the learning rate. "
    if back.paused:
        return (
            f"{look}Then continue from gs.recovery.last_good(opt_state) with a lower learning "
            "rate, or from an earlier checkpoint. gs.check raises when a run is paused."
        )
    if back.in_vain:
        return (
            f"{look}A loss that stays high at parameters that were good has changed with the data: "
            "then use gs.guard without gs.rollback, which only costs steps there, or two copies or "
            "more, with which gs.rollback undoes such a return."
        )
    if back.often:
        return f"{look}{cure}"
    if back.undone == back.times:
        return (
            f"{look}If the data were meant to change, this run needs no action: a rollback that is "
            "undone costs a few steps. Otherwise, look for what changed in them."
        )
    return f"{look}If it was a single fault, this run needs no action."


def small_steps(run: Run) -> Diagnosis | None:
    """Find a run that ends with steps far below its learning rate, because of back-off.

    Rule: at the last step, less than 0.1 of the step is left, after 1 fall of the factor or more,
    and the factor has risen before, which that of a plateau does not.
    """
    falls = slowed(run)
    if not falls:
        return None
    factor = float(run.lr_factor[-1])
    return Diagnosis(
        "small_steps",
        Severity.SERIOUS,
        f"The run ended with steps at {100 * factor:.2g} % of the learning rate: back-off lowered "
        f"them {counted(falls, 'time')}.",
        (
            Evidence("factor on the step at the end", factor, "<", SMALL),
            Evidence("times that it fell", falls, ">=", 1),
        ),
        "Find what is rejected or rolled back. Without it, gs.backoff raises the steps to their "
        "full size within 665 steps, with the defaults. If the learning rate is right and the "
        "batches are to blame, use the guard without gs.backoff.",
    )


def steps_shortened(run: Run) -> Diagnosis | None:
    """Find a learning rate that was too high, by how much ``gs.govern`` shortened the steps.

    Rule: after the first 20 steps, which the trust region may shorten in any run, the factor on the
    step is below 0.5 in 10 steps or more, and it has risen by more than a tenth in one step, which
    that of back-off does not. It is serious if that is still so in the last 10 steps.
    """
    found = shortened(run)
    if found is None:
        return None
    return Diagnosis(
        "steps_shortened",
        Severity.SERIOUS if found.lasts else Severity.MILD,
        found.sentence,
        (Evidence("steps shortened to less than half", found.steps, ">=", ENOUGH),),
        "Divide the learning rate by that factor there. The run was protected, but a schedule that "
        "fits is better than a limit.",
    )
