"""All contestants through the same batches, side by side."""

import time
from collections.abc import Callable
from typing import NamedTuple

from gradstable._src.cli.demo.contestants import CONTESTANTS, make_methods
from gradstable._src.cli.demo.data import batch_at, load_splits
from gradstable._src.cli.demo.faults import Fault, plant, planted
from gradstable._src.cli.demo.outcome import Outcome, outcome_of
from gradstable._src.cli.demo.train import Run, make_train_step

# Records are fetched, and the test images looked at, every so many steps.
CHUNK = 10


class Race(NamedTuple):
    """Everything that came out of one demo: the source of table, plots, page and file."""

    seed: int
    steps: int
    seconds: float
    train_size: int
    test_size: int
    leaves: list[str]
    faults: tuple[Fault, ...]
    outcomes: dict[str, Outcome]


def race(*, seed: int, steps: int, watch: Callable[[Run], None]) -> Race:
    """Trains all contestants, a few steps each in turn.

    Args:
      seed: decides on split, order, shifts, faults' details, first parameters and dropout.
      steps: how many steps each contestant does.
      watch: called with a contestant whenever it has done some steps.

    Returns:
      What came out.
    """
    start = time.perf_counter()
    train, test = load_splits(seed)
    faults = planted(steps)
    methods = make_methods(steps)
    compiled = {key: make_train_step(method.read) for key, method in methods.items()}
    runs = [
        Run(one, method=methods[one.method], train_step=compiled[one.method], seed=seed)
        for one in CONTESTANTS
    ]
    for run in runs:
        run.test(test)
    for first in range(1, steps + 1, CHUNK):
        chunk = range(first, min(first + CHUNK, steps + 1))
        clean = [batch_at(step, train, seed=seed) for step in chunk]
        storm = [
            plant(batch, step, faults=faults, seed=seed)
            for step, batch in zip(chunk, clean, strict=True)
        ]
        for run in runs:
            run.train(storm if run.contestant.storm else clean)
            run.test(test)
            watch(run)
    return Race(
        seed=seed,
        steps=steps,
        seconds=time.perf_counter() - start,
        train_size=len(train.label),
        test_size=len(test.label),
        leaves=runs[0].leaves,
        faults=faults,
        outcomes={run.contestant.key: outcome_of(run) for run in runs},
    )
