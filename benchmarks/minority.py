"""At what size gradients that keep coming back are let in, and what it gains and costs.

Run ``python -m benchmarks.minority`` (about ten minutes on one core), or with ``--quick`` for two
seeds. The first columns are healthy tasks in which a minority of batches has large gradients: the
error of the worst head, median over seeds. In the others every tenth batch is broken, with inputs
multiplied by 1,000: the final loss relative to that of bare AdamW without faults. The design notes
discuss the results.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.run import final_losses, member, runner
from gradstable_gauntlet.storms import STORMS, weather_of
from gradstable_gauntlet.tasks import TASKS
from gradstable_gauntlet.tasks.parts import FLOOR
from rich.console import Console
from rich.table import Table

import gradstable as gs
from benchmarks.variants import guarded
from gradstable._src.rules.recurrence import appeal, new_recurrence
from gradstable.rules import Rule, log_mad

HEALTHY = {"two_heads": 1e-2, "two_heads_rare": 1e-2, "two_heads_even": 1e-2, "sparse_reward": 1e-2}
BROKEN = {"digits_cnn": 1e-2, "lm_topics": 3e-2, "heavy_tails": 1e-2, "relu_rnn": 1e-2}
STORM = "batch x 1e3, 10%"
SEEDS = range(5)


def let_in(medians: float) -> Rule:
    """Return the default rule, with everything that comes back let in at a fixed size."""
    rule = log_mad(reject_recurring=True)

    def init(params: Any) -> Any:
        return rule.init(params), new_recurrence()

    def decide(measure: gs.Measure, state: Any, **context: Any) -> tuple[gs.Verdict, Any]:
        usual = jnp.exp(state[0].log_center)
        verdict, inner = rule.decide(measure, state[0], **context)
        admit, _, recurrence = appeal(state[1], jnp.log(measure.norm), ~verdict.accept)
        size = jnp.minimum(medians * usual, verdict.threshold)
        verdict = verdict._replace(
            accept=verdict.accept | admit,
            scale=jnp.where(admit, size / measure.norm, verdict.least_scale),
        )
        return verdict, (inner, recurrence)

    return Rule(init, decide)


VARIANTS: dict[str, Contestant] = {
    "bare AdamW": CONTESTANTS["adamw"],
    "after a limit of 1": CONTESTANTS["clip"],
    "never let in": guarded(log_mad(reject_recurring=True)),
    "a tenth of the median": guarded(let_in(0.1)),
    "the median": guarded(let_in(1.0)),
    "four medians": guarded(let_in(4.0)),
    "the default": guarded(),
}


def final(task_name: str, variant: Contestant, rate: float, storm: str, seeds: range) -> float:
    """Return the final loss, median over seeds."""
    task = TASKS[task_name]()
    run = runner(task, variant, width=len(seeds))
    weathers = [weather_of(storm, STORMS[storm], steps=task.steps, seed=seed) for seed in seeds]
    members = [
        member(seed=seed, rate=rate, weather=one) for seed, one in zip(seeds, weathers, strict=True)
    ]
    losses = final_losses(run(members))
    jax.clear_caches()
    return float(np.median(losses))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two seeds")
    seeds = range(2) if parser.parse_args().quick else SEEDS
    bare = CONTESTANTS["adamw"]
    calm = {task: final(task, bare, rate, "none", seeds) for task, rate in BROKEN.items()}
    table = Table("let in at", *HEALTHY, *BROKEN)
    for name, variant in VARIANTS.items():
        errors = [
            final(task, variant, rate, "none", seeds) - FLOOR for task, rate in HEALTHY.items()
        ]
        ratios = [
            final(task, variant, rate, STORM, seeds) / calm[task] for task, rate in BROKEN.items()
        ]
        table.add_row(name, *(f"{one:.4f}" for one in errors), *(f"{one:.2f}" for one in ratios))
    Console().print(table)


if __name__ == "__main__":
    main()
