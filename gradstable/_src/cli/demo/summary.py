"""The result in words and in a table: said once, shown on the terminal and on the page."""

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from gradstable._src.cli.demo.faults import Fault, bad_steps
from gradstable._src.cli.demo.outcome import Act, Outcome
from gradstable._src.cli.demo.race import Race

HEADER = (
    "contestant",
    "test loss",
    "test accuracy",
    "steps rejected",
    "steps clipped",
    "first bad leaf",
)
_PACKAGES = ("gradstable", "jax", "optax", "flax", "numpy", "scikit-learn")
_NOTHING = "-"


class Account(NamedTuple):
    """One fault, and what the guard made of it."""

    steps: str
    planted: str
    answer: str


def table(race: Race) -> list[tuple[str, ...]]:
    """Return the rows of the table of results, as text, one for each contestant."""
    return [_row(outcome) for outcome in race.outcomes.values()]


def accounts(race: Race) -> list[Account]:
    """Return for each fault what was done to the data and what the guard did about it."""
    acts = {act.step: act for act in race.outcomes["guard"].rejected}
    return [
        Account(steps=spans(fault.steps), planted=fault.text, answer=_answer(fault, acts))
        for fault in race.faults
    ]


def conclusions(race: Race) -> list[str]:
    """Return what is to be learned from the race, in sentences made from its numbers."""
    return [_planted_and_rejected(race), *_comparison(race), _healthy(race)]


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def command(race: Race) -> str:
    """Return the command line that gives the same numbers again."""
    return f"gradstable demo --seed {race.seed} --steps {race.steps}"


def setting(race: Race) -> str:
    """Return in two sentences what was trained on what."""
    return (
        f"A convolutional network (Flax NNX) learns {race.train_size} handwritten digits of "
        f"8 by 8 pixels and is tested on {race.test_size} others, {race.steps} steps. "
        "Every contestant gets the same first parameters and the same batches in the same "
        "order; only images, labels and example weights are corrupted, and the gradients are "
        "what back-propagation makes of them."
    )


def spans(steps: Iterable[int]) -> str:
    """Return step numbers as text, with runs drawn together: ``20, 220-223``."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _row(outcome: Outcome) -> tuple[str, ...]:
    # A bare optimizer takes what comes: a zero would look as if it had judged.
    rejected, clipped = (
        (str(len(outcome.rejected)), str(len(outcome.clipped)))
        if outcome.judges
        else (_NOTHING, _NOTHING)
    )
    return (
        outcome.contestant.name,
        f"{outcome.final.loss:.3f}",
        _percent(outcome.final.accuracy),
        rejected,
        clipped,
        outcome.first_bad_leaf or _NOTHING,
    )


def _answer(fault: Fault, acts: dict[int, Act]) -> str:
    here = [acts[step] for step in fault.steps if step in acts]
    if not here:
        return "not rejected"
    number = len(fault.steps)
    count = "rejected" if len(here) == number == 1 else f"{len(here)} of {number} rejected"
    causes = dict.fromkeys(act.cause for act in here)
    return f"{count}: {'; '.join(causes)}{_norms(here)}, {_where(here)}"


def _norms(acts: Sequence[Act]) -> str:
    norms = [act.grad_norm for act in acts if np.isfinite(act.grad_norm)]
    if not norms:
        return ""
    # What it is to be compared with is the threshold before the fault moved it.
    return f" (norm up to {max(norms):.3g}, threshold {acts[0].threshold:.3g})"


def _where(acts: Sequence[Act]) -> str:
    leaves = dict.fromkeys(act.leaf for act in acts if act.leaf)
    which = "first in" if all(act.nonfinite for act in acts) else "largest in"
    return f"{which} {', '.join(leaves)}"


def _planted_and_rejected(race: Race) -> str:
    planted = set(bad_steps(race.faults))
    rejected = {act.step for act in race.outcomes["guard"].rejected}
    told = f"the guard rejected {_steps(rejected)}"
    if not planted:
        return f"No bad batch was planted in so short a run; {told}."
    told = f"Bad batches were planted at {_steps(planted)}; {told}"
    if planted == rejected:
        return f"{told}: exactly these."
    missed, extra = planted - rejected, rejected - planted
    faults = [f"bad and not rejected: {_steps(missed)}"] if missed else []
    faults += [f"rejected and not bad: {_steps(extra)}"] if extra else []
    return f"{told} ({'; '.join(faults)})."


def _steps(steps: set[int]) -> str:
    if not steps:
        return "no step"
    return f"step{'s' * (len(steps) > 1)} {spans(steps)}"


def _comparison(race: Race) -> list[str]:
    reference = race.outcomes["adamw_clean"].final.accuracy
    guarded = race.outcomes["guard"].final.accuracy
    lines = [
        f"The guarded run ended at {_percent(guarded)} test accuracy; without any fault, bare "
        f"adamw ends at {_percent(reference)} ({100 * (guarded - reference):+.2f} points)."
    ]
    for key in ("adamw", "clip_finite"):
        outcome = race.outcomes[key]
        line = f"{outcome.contestant.name} ended at {_percent(outcome.final.accuracy)}"
        broken = _broken_from(outcome)
        if broken:
            before = max(one for one in outcome.evaluations if one.step < broken)
            line += (
                f"; the update of step {broken} made its loss NaN for good "
                f"(at step {before.step} it was at {_percent(before.accuracy)})"
            )
        lines.append(f"{line}.")
    return lines


def _broken_from(outcome: Outcome) -> int | None:
    """Return the step whose update broke the run for good, if there is one."""
    if np.isfinite(outcome.final.loss):
        return None
    # The loss of the broken network is never a number again: go back from the end. The
    # last steps of that stretch may be rejected ones, which changed nothing.
    bad = ~np.isfinite(outcome.series["loss"])
    harmless = ~bad | outcome.series["rejected"].astype(bool)
    good = np.flatnonzero(harmless)
    return int(good[-1]) + 2 if good.size else 1


def _healthy(race: Race) -> str:
    outcome = race.outcomes["guard_clean"]
    touched = len(outcome.rejected) + len(outcome.clipped)
    return (
        f"Without any fault, the guard touched {touched} of {race.steps} steps "
        f"({100 * outcome.touched:.1f} %) and ended at {_percent(outcome.final.accuracy)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
