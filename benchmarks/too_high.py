"""What ``gs.govern`` does at learning rates from sound to far too high, around several optimizers.

Run ``python -m benchmarks.too_high`` (about two minutes on two cores), or with ``--quick`` for one
task and one seed. The final loss, median over seeds, in calm weather: with the guard alone, and
with ``gs.govern`` around it, at the same rates. The design notes discuss the results.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.contestants import bare
from gradstable_gauntlet.run import final_losses, member, runner
from gradstable_gauntlet.storms import calm
from gradstable_gauntlet.tasks import TASKS
from rich.console import Console
from rich.table import Table

import gradstable as gs

Make = Callable[[Schedule], optax.GradientTransformation]

TASK_NAMES = ("digits_cnn", "heavy_tails")
# Around the best rate, and then ten times and a hundred times too high or more.
OPTIMIZERS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "adamw": (bare.adamw, (0.003, 0.01, 0.03, 0.3, 1.0)),
    "sgd": (bare.sgd, (0.003, 0.01, 0.03, 0.1, 1.0)),
    "lion": (bare.lion, (3e-4, 1e-3, 3e-3, 0.03, 0.3)),
    "muon": (bare.muon, (0.003, 0.01, 0.03, 0.3, 1.0)),
}


def losses(task_name: str, make: Make, rates: tuple[float, ...], seeds: range) -> np.ndarray:
    """Return the final losses ``[rates]``, median over seeds."""
    task = TASKS[task_name]()
    run = runner(task, Contestant(make, "", base=""), width=len(rates) * len(seeds))
    weather = calm(task.steps)
    members = [member(seed=seed, rate=rate, weather=weather) for rate in rates for seed in seeds]
    found = final_losses(run(members)).reshape(len(rates), len(seeds))
    jax.clear_caches()
    return np.median(found, axis=1)


def both(make: Make) -> dict[str, Make]:
    """Return an optimizer under the guard, and in a trust region."""

    def guarded(schedule: Schedule) -> optax.GradientTransformation:
        return gs.guard(make(schedule))

    return {"gs.guard": guarded, "gs.govern": lambda schedule: gs.govern(guarded(schedule))}


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task, one seed")
    quick = parser.parse_args(arguments).quick
    console = Console()
    for task_name in TASK_NAMES[: 1 if quick else None]:
        table = Table("optimizer", "", *map(str, range(5)), title=f"{task_name}: rate, loss")
        for name, (make, rates) in OPTIMIZERS.items():
            table.add_row(name, "rate", *(f"{rate:g}" for rate in rates))
            for label, protected in both(make).items():
                found = losses(task_name, protected, rates, range(1 if quick else 3))
                table.add_row("", label, *(f"{loss:.3f}" for loss in found))
        console.print(table)


if __name__ == "__main__":
    main()
