"""Train the same model with each contestant, and print the results side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import gradstable as gs
from examples.common.config import CommonConfig
from examples.common.contestants import Name, contestant
from examples.common.faults import spike
from examples.common.records import run_file

NAMES: tuple[Name, ...] = ("bare", "ours")
_PLAIN_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one run.

    Attributes:
      losses: the training loss of each step.
      metric: how good the model is on held-out data.
      metric_name: what that number is.
      explanation: what ``gs.explain`` says; "" without a guard.
      rejected: how many steps were rejected.
      clipped: how many were clipped.
    """

    losses: np.ndarray
    metric: float
    metric_name: str
    explanation: str = ""
    rejected: int = 0
    clipped: int = 0


Train = Callable[[Any, optax.GradientTransformation, str], Outcome]


def outcome(
    losses: Sequence[Any], *, metric: Any, metric_name: str, opt_state: Any, params: Any = None
) -> Outcome:
    """Return the outcome of a run, including the report of the guard in its state, if any.

    Args:
      losses: one scalar per step, on the device or off it.
      metric: a scalar.
      metric_name: its name in the table.
      opt_state: the optimizer state, or an object that contains it (``nnx.Optimizer``,
        ``TrainState``).
      params: a tree with the paths of the parameters, to name leaves.
    """
    report = {}
    try:
        health = gs.health(opt_state)
        report = {
            "explanation": gs.explain(opt_state, params),
            "rejected": int(health.rejected),
            "clipped": int(health.clipped),
        }
    except ValueError:  # there is no guard in it
        pass
    values = np.asarray([float(loss) for loss in losses])
    return Outcome(values, float(metric), metric_name, **report)


def make_tx(
    config: CommonConfig, schedule: optax.Schedule, name: Name
) -> optax.GradientTransformation:
    """Return a contestant on this schedule, with the fault injected into it."""
    spiked = spike(schedule, fault=config.fault, at=config.fault_at)
    return contestant(name, spiked, peak=config.learning_rate, weight_decay=config.weight_decay)


def compare(config: CommonConfig, train: Train, *, schedule: optax.Schedule) -> dict[str, Outcome]:
    """Train with each contestant and print a table.

    A run that dies is a result, not an error.

    Args:
      config: the options; ``config.optimizer`` selects the contestants.
      train: takes the options, the optimizer, and the name of the contestant; returns the outcome.
      schedule: from step to learning rate, without faults.

    Returns:
      The outcomes by contestant name.
    """
    names: list[Name] = [name for name in NAMES if config.optimizer in (name, "both")]
    console = _console()
    outcomes: dict[str, Outcome] = {}
    for name in names:
        console.print(f"{name}: {config.steps} steps, fault: {config.fault} ...")
        outcomes[name] = train(config, gs.record(make_tx(config, schedule, name)), name)
    console.print(_table(outcomes))
    for result in outcomes.values():
        if result.explanation:
            console.print(result.explanation, soft_wrap=True, markup=False)
    files = " ".join(str(run_file(config, name)) for name in names)
    console.print(
        f"See more: gradstable report {'--compare ' if len(names) > 1 else ''}{files}",
        soft_wrap=True,
    )
    return outcomes


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _table(outcomes: dict[str, Outcome]) -> Table:
    metric_name = next(iter(outcomes.values())).metric_name
    table = Table("optimizer", "steps", "final loss", metric_name, "rejected", "clipped")
    for name, result in outcomes.items():
        judged = bool(result.explanation)
        table.add_row(
            name,
            str(len(result.losses)),
            f"{result.losses[-1]:.4g}",
            f"{result.metric:.4f}",
            str(result.rejected) if judged else "-",
            str(result.clipped) if judged else "-",
        )
    return table
