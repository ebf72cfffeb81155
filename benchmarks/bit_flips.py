"""Flipped bits, as a faulty machine makes them, in gradients or in parameters.

Every fiftieth step is struck. A run *survives* if its final held-out loss is at most 1.1 times that
of bare AdamW without faults, median over seeds. Behind it is the loss relative to the same run
without faults, median over all runs. *Touched* is how many of the strikes the guard clipped or
rejected (steps beyond those that it touches without faults), and *fingerprint* how many change
``gs.fingerprint`` of the tree, which is what ``gs.replay`` and ``gs.sharding.unequal_replicas``
compare. Learning rates are those of AdamW in the gauntlet, for all.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.flips import FLIPS, SHARE, flipped
from gradstable_gauntlet.results import read
from gradstable_gauntlet.run import Trace, final_losses, member, runner
from gradstable_gauntlet.storms import calm, weather_of
from gradstable_gauntlet.tasks import TASKS

import gradstable as gs
from benchmarks.pages import write_page

_RESULTS = Path(__file__).parent / "gauntlet/results/results.json.gz"
CHOSEN = {
    "adamw": "AdamW",
    "clip": "clip, AdamW",
    "gs.guard(adamw)": "guard",
    "gs.govern(gs.guard(adamw))": "govern, guard",
    "gs.rollback(gs.guard(adamw))": "rollback, guard",
    "gs.stable_adamw": "stable_adamw",
}
SURVIVES = 1.1


def rates() -> dict[str, float]:
    """Return the learning rate of AdamW for each task of the gauntlet's results."""
    cells = read(_RESULTS).cells
    return {cell.task: cell.rate for cell in cells if cell.contestant == "adamw"}


def run(
    task_name: str, name: str, rate: float, storms: list[str], seeds: range
) -> dict[str, Trace]:
    """Return the traces of all seeds in calm weather (``""``) and in each storm."""
    task = TASKS[task_name]()
    weathers = {"": [calm(task.steps)] * len(seeds)} | {
        storm: [weather_of(storm, FLIPS[storm], steps=task.steps, seed=seed) for seed in seeds]
        for storm in storms
    }
    members = [
        member(seed=seed, rate=rate, weather=weather)
        for each in weathers.values()
        for seed, weather in zip(seeds, each, strict=True)
    ]
    traces = runner(task, CONTESTANTS[name], width=min(30, len(members)))(members)
    jax.clear_caches()
    return {
        storm: jax.tree.map(lambda leaf, i=i: leaf[i * len(seeds) : (i + 1) * len(seeds)], traces)
        for i, storm in enumerate(weathers)
    }


def seen_by_fingerprint(storm: str, *, steps: int = 500) -> float:
    """Return the share of strikes after which the fingerprint of a tree is another one."""
    flips = weather_of(storm, FLIPS[storm], steps=steps, seed=0).flips
    assert flips is not None
    key = jax.random.key(0)
    tree = {"w": jax.random.normal(key, (64, 64)), "b": jax.random.normal(key, (64,))}
    sound, after = gs.fingerprint(tree), jax.jit(lambda *a: gs.fingerprint(flipped(tree, *a)))
    masks = flips.gradient | flips.params
    found = [
        bool(jnp.any(after(masks[step], flips.stride[step], jax.random.key(step)) != sound))
        for step in np.flatnonzero(masks)
    ]
    return float(np.mean(found))


def row(
    storm: str,
    found: dict[tuple[str, str], dict[str, Trace]],
    chosen: Mapping[str, str] = CHOSEN,
) -> str:
    """Return a line of the table."""
    tasks = dict.fromkeys(task for task, _ in found)
    cells: list[str] = []
    touched: list[Any] = []
    for name in chosen:
        survived: list[Any] = []
        relative: list[Any] = []
        for task in tasks:
            own = final_losses(found[task, name][""])
            limit = SURVIVES * np.median(final_losses(found[task, "adamw"][""]))
            after = final_losses(found[task, name][storm])
            survived.append(after <= limit)
            relative.append(after / own)
            if name == "gs.guard(adamw)":
                more = found[task, name][storm].touched - found[task, name][""].touched
                touched.append(more / (0.9 * SHARE))
        cells.append(f"{np.mean(survived):.0%}, {np.median(relative):.3g}")
    caught = float(np.clip(np.mean(touched), 0.0, 1.0))
    return " | ".join([storm, *cells, f"{caught:.0%}", f"{seen_by_fingerprint(storm):.0%}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["deep_mlp", "tanh_rnn", "lm_topics_qk"])
    parser.add_argument("--storms", nargs="+", default=list(FLIPS), choices=list(FLIPS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    arguments = parser.parse_args()
    rate, seeds = rates(), range(100, 100 + arguments.seeds)
    found = {
        (task, name): run(task, name, rate[task], arguments.storms, seeds)
        for task in arguments.tasks
        for name in CHOSEN
    }
    headings = ["strike", *CHOSEN.values(), "touched", "fingerprint"]
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    lines += [f"| {row(storm, found)} |" for storm in arguments.storms]
    print(*lines, sep="\n")
    if arguments.markdown:
        which = f"{arguments.seeds} seeds of {', '.join(arguments.tasks)}."
        write_page(arguments.markdown, "Flipped bits", __doc__, which, lines)


if __name__ == "__main__":
    main()
