"""Settings by situation, from the committed results: ``python -m benchmarks.situations``.

A row shows which share of the runs with faults ends within 1.1 times the loss of the same
contestant without faults, for AdamW bare, with a norm limit of 1, and with the protections of this
package; on tasks that nothing was tuned on, with five seeds (the gauntlet, whose page says how).
What to write is the plainest protection within two standard errors of the best of ours, as long as
it costs no more than 2 % of the loss without faults. Healthy tasks have no faults: there, the
numbers are final losses relative to the better of AdamW and AdamW with a norm limit.
"""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gradstable_gauntlet.harm import harm
from gradstable_gauntlet.league import Share, Standing, league
from gradstable_gauntlet.results import Results, read

from benchmarks.pages import write_page

FOLDER = Path(__file__).parent / "gauntlet" / "results"
_MOST_COST = 2.0  # percent

# The plainest first, by their names in the results, and how they are written.
OURS = {
    "gs.guard(adamw)": "`gs.guard(optax.adamw(r))`",
    "gs.stable_adamw": "`gs.stable_adamw(r)`",
    "gs.govern(gs.guard(adamw))": "`gs.govern(gs.guard(optax.adamw(r)))`",
    "gs.govern(gs.stable_adamw)": "`gs.govern(gs.stable_adamw(r))`",
}
SHOWN = ("adamw", "clip", *OURS)


class Situation(NamedTuple):
    """What someone trains, or fears, and where it was measured.

    Attributes:
      name: the situation.
      tasks: the tasks that stand for it; empty: all.
      storms: the first letters of the storms that count; empty: all faults.
    """

    name: str
    tasks: tuple[str, ...] = ()
    storms: tuple[str, ...] = ()


SITUATIONS = (
    Situation("deep network without normalization", ("deep_mlp",)),
    Situation("recurrent network", ("tanh_rnn",)),
    Situation("language model", ("lm_topics_qk", "lm_markov", "lm_markov_qk")),
    Situation("two-player game (GAN)", ("gan",)),
    Situation("corrupted batches or labels", storms=("batch x", "labels")),
    Situation("float16 or bfloat16", storms=("bfloat16", "float16")),
    Situation("a learning rate that is too high", storms=("no warm-up", "rate x")),
    Situation("a loss that changes its size", storms=("loss", "quiet")),
)
HEALTHY = {
    "reinforcement learning: policy gradient": ("policy",),
    "reinforcement learning: rare rewards": ("sparse_reward",),
    "several tasks, of unequal size or frequency": (
        "two_heads_rare",
        "two_heads_even",
        "three_heads",
    ),
    "Wasserstein critic": ("wgan",),
    "metric learning: a hinge that is mostly zero": ("triplet",),
}


def standings(results: Results, situation: Situation) -> Mapping[str, Standing]:
    """Return how each contestant did in a situation."""
    storms = [
        one for one in results.storms
        if not situation.storms or one.startswith(situation.storms) or one == "none"
    ]  # fmt: skip
    found = league(results, tasks=situation.tasks or None, storms=storms)
    return {one.contestant: one for one in found}


def choice(found: Mapping[str, Standing]) -> str:
    """Return the plainest of ours that is about as good as the best of ours."""
    cheap = [name for name in OURS if found[name].clean_cost <= _MOST_COST] or [*OURS]
    best = max((found[name].own for name in cheap), key=lambda share: share.percent)
    return next(
        name for name in cheap if found[name].own.percent >= best.percent - 2.0 * best.error
    )


def storm_lines(results: Results) -> list[str]:
    """Return the table of situations with faults."""
    lines = [
        "| situation | write | AdamW | norm limit of 1 | guard | stable_adamw | govern(guard) "
        "| govern(stable_adamw) |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for situation in SITUATIONS:
        found = standings(results, situation)
        shares = " | ".join(_percent(found[name].own) for name in SHOWN)
        lines.append(f"| {situation.name} | {OURS[choice(found)]} | {shares} |")
    return lines


def healthy_lines(results: Results) -> list[str]:
    """Return the table of healthy tasks."""
    losses = {(one.contestant, one.task): one.loss.value for one in harm(results)}
    names = ("adamw", "clip", "gs.guard(adamw)", "gs.stable_adamw")
    lines = [
        "| situation, without faults | AdamW | norm limit of 1 | guard | stable_adamw |",
        "| --- | --: | --: | --: | --: |",
    ]
    for situation, tasks in HEALTHY.items():
        worst = [max(losses[name, task] for task in tasks) for name in names]
        lines.append(f"| {situation} | {' | '.join(f'{one:.2f}' for one in worst)} |")
    return lines


def lines() -> list[str]:
    """Return both tables."""
    storms = storm_lines(read(FOLDER / "results.json.gz"))
    return [*storms, "", *healthy_lines(read(FOLDER / "fair.json.gz"))]


def _percent(share: Share) -> str:
    return f"{share.percent:.0f} %"


def main(args: Sequence[str] | None = None) -> None:
    """Print the tables, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="write the page here")
    path = parser.parse_args(args).markdown
    found = lines()
    if path is None:
        print(*found, sep="\n")
        return
    about = (
        "`r` is your learning rate. For a whole run, put `gs.protect(...)` around it, with "
        "`loss_scale=True` for float16 and `rollback=True` if nobody watches: [Protect a "
        "run](using/protect.md). Where a norm limit of 1 does better than no limit without any "
        "fault, as for recurrent networks and policy gradients, give the guard both rules: "
        "`gs.guard(optax.adamw(r), gs.rules.global_norm(1.0), gs.rules.log_mad())`. To fine-tune, "
        "begin with the row of the model that you tune: that was not measured."
    )
    write_page(path, "Settings by situation", __doc__, textwrap.fill(about, 125), found)


if __name__ == "__main__":
    main()
