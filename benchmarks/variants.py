"""Ideas for the default of ``gs.guard``, compared with the current one, on the tuning tasks.

Run ``python -m benchmarks.variants`` (about twenty minutes on one core), or with ``--tasks`` and
``--variants`` for a part of it. A cell is the final loss, median of five seeds, relative to that of
bare AdamW without faults; the last column is the fraction of healthy steps that were touched. The
design notes discuss the results.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradstable_gauntlet.contestant import Contestant, Schedule
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.contestants.bare import adamw
from gradstable_gauntlet.run import final_losses, member, runner
from gradstable_gauntlet.storms import STORMS, weather_of
from gradstable_gauntlet.tasks import TASKS
from rich.console import Console
from rich.table import Table

import gradstable as gs
from gradstable.rules import Reason, Rule, global_norm, log_mad, loss_spike

RATES = {"digits_cnn": 1e-2, "lm_topics": 3e-2, "heavy_tails": 1e-2, "sines": 3e-2, "lstm": 1e-2}
SEEDS = range(5)
WEATHER = (
    "none", "batch x 1e3, once", "batch x 1e3, burst", "batch x 1e3, 10%", "batch x nan, 10%",
    "labels x 1e4", "loss x 30 for good", "rate x 100", "quiet, then loud",
)  # fmt: skip


def released(rule: Rule, after: int) -> Rule:
    """Return a rule that clips instead of rejecting after this many rejections in a row."""

    def init(params: Any) -> Any:
        return rule.init(params), jnp.zeros((), jnp.int32)

    def decide(measure: gs.Measure, state: Any, **context: Any) -> tuple[gs.Verdict, Any]:
        inner, run = state
        verdict, inner = rule.decide(measure, inner, **context)
        outside = ~verdict.accept & measure.finite
        force = outside & (run >= after)
        limit = verdict.threshold / jnp.maximum(measure.norm, jnp.finfo(jnp.float32).tiny)
        verdict = verdict._replace(
            accept=verdict.accept | force,
            scale=jnp.where(force, limit, verdict.least_scale),
            reason=jnp.where(force, Reason.SPIKE_CLIPPED, verdict.reason),
        )
        return verdict, (inner, jnp.where(outside, run + 1, 0))

    return Rule(init=init, decide=decide)


def guarded(*rules: Rule) -> Contestant:
    def make(schedule: Schedule) -> Any:
        return gs.guard(adamw(schedule), *rules)

    return Contestant(make, "a variant", base="adamw", ours=True)


def _around(wrap: Any) -> Contestant:
    def make(schedule: Schedule) -> Any:
        return wrap(gs.guard(adamw(schedule)))

    return Contestant(make, "a variant", base="adamw", ours=True)


VARIANTS: dict[str, Contestant] = {
    "bare": CONTESTANTS["adamw"],
    "clip to 1": CONTESTANTS["clip"],
    "the default": guarded(log_mad()),
    "clip at 3, spread .05": guarded(log_mad(clip_at=3.0, min_spread=0.05)),
    "clip at 4, spread .05": guarded(log_mad(min_spread=0.05)),
    "clip at 3, spread .1": guarded(log_mad(clip_at=3.0)),
    "reject at 8": guarded(log_mad(reject_at=8.0, min_spread=0.05)),
    "spread up to .5": guarded(log_mad(max_spread=0.5, min_spread=0.05)),
    "twice as fast": guarded(log_mad(rate=0.06, min_spread=0.05)),
    "release after 8": guarded(released(log_mad(), 8)),
    "release after 16": guarded(released(log_mad(), 16)),
    "and a vote of the loss": guarded(log_mad(), loss_spike()),
    "and a limit of 1": guarded(log_mad(), global_norm(1.0)),
    "moment_hygiene": _around(gs.recovery.moment_hygiene),
    "rollback": _around(gs.rollback),
    "rollback, patience 10": _around(lambda tx: gs.rollback(tx, patience=10)),
    "rollback, backoff": _around(lambda tx: gs.backoff(gs.rollback(tx))),
    "rollback, backoff at once": _around(lambda tx: gs.backoff(gs.rollback(tx), after=1)),
}


def measure(task_name: str, variant: Contestant) -> tuple[np.ndarray, float]:
    """Return the median final loss in every storm, and the fraction of healthy steps touched."""
    task, rate = TASKS[task_name](), RATES[task_name]
    run = runner(task, variant, width=len(WEATHER) * len(SEEDS))
    traces = run(
        [
            member(
                seed=seed,
                rate=rate,
                weather=weather_of(name, STORMS[name], steps=task.steps, seed=seed),
            )
            for name in WEATHER
            for seed in SEEDS
        ]
    )
    final = final_losses(traces).reshape(len(WEATHER), len(SEEDS))
    touched = np.asarray(traces.touched).reshape(final.shape)[0]
    return np.median(final, axis=1), float(touched.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", nargs="*", choices=RATES, default=list(RATES))
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    console = Console()
    for task in args.tasks:
        base = measure(task, VARIANTS["bare"])[0][0]
        table = Table(
            "variant", *WEATHER, "touched", title=f"{task}: bare AdamW ends at {base:.4f}"
        )
        for name in args.variants:
            final, touched = measure(task, VARIANTS[name])
            table.add_row(name, *(f"{loss / base:.3f}" for loss in final), f"{touched:.2%}")
            jax.clear_caches()
        console.print(table)


if __name__ == "__main__":
    main()
