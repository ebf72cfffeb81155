"""All faults of one example in one table: ``python -m examples.common.table digits_cnn``.

Further arguments are options of the example, such as ``--steps 100``.
"""

import dataclasses
import importlib
import sys
import time
from typing import Any

import tyro

from examples.common.compare import Outcome, compare
from examples.common.faults import FAULTS


def main(name: str, *options: str) -> None:
    """Run an example, ``examples/<name>``, with every fault; print a Markdown table."""
    Config: Any = importlib.import_module(f"examples.{name}.configs.default").Config
    config = tyro.cli(Config, args=options)
    train: Any = importlib.import_module(f"examples.{name}.train")
    start, rows, title = time.perf_counter(), [], ""
    for fault in FAULTS:
        planted = dataclasses.replace(
            config, fault=fault, workdir=config.workdir / fault, optimizer="both"
        )
        outcomes = compare(planted, train.train, schedule=train.make_schedule(planted))
        rows.append(f"| {fault} | " + " | ".join(_cells(outcomes)) + " |")
        title = next(iter(outcomes.values())).metric_name
    print(f"| fault | {title}: bare | ours | final loss: bare | ours | rejected | clipped |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{time.perf_counter() - start:.0f} seconds")


def _cells(outcomes: dict[str, Outcome]) -> list[str]:
    ours = outcomes["ours"]
    metrics = [f"{outcome.metric:.4f}" for outcome in outcomes.values()]
    losses = [f"{outcome.losses[-1]:.3g}" for outcome in outcomes.values()]
    return [*metrics, *losses, str(ours.rejected), str(ours.clipped)]


if __name__ == "__main__":
    main(*sys.argv[1:])
