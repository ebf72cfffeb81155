"""Gradients of recurrent networks explode, and clipping them helps (Pascanu et al. 2013)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from benchmarks.claims.finding import FAILS, HOLDS, OPEN, Answer, Finding, Scale, Verdict
from benchmarks.claims.models import adding
from benchmarks.claims.training import Run, keys_of, train

RADII, LENGTHS, RATE, STEPS = (1.0, 1.5, 2.0), (50, 100), 0.01, 600
LIMITED = (gs.rules.global_norm(1.0), gs.rules.log_mad())
METHODS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "none": lambda: optax.sgd(RATE),
    "clip to 1": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATE)),
    "gs.guard": lambda: gs.guard(optax.sgd(RATE)),
    "gs.govern(gs.guard)": lambda: gs.govern(gs.guard(optax.sgd(RATE))),
    "gs.guard, limit 1": lambda: gs.guard(optax.sgd(RATE), *LIMITED),
}


def run(method: str, length: int, scale: Scale) -> Run:
    """Return runs ``[radii, seeds]``."""
    start, data = keys_of(scale.seeds)
    models = [adding(length=length, radius=radius) for radius in RADII]
    starts = [[model.init(key) for key in start] for model in models]
    stacked = [jax.tree.map(lambda *x: jnp.stack(x), *each) for each in starts]
    every = jax.tree.map(lambda *x: jnp.stack(x), *stacked)

    # The radius affects only the initialization.
    def one(start: Any, key: jax.Array) -> Run:
        return train(models[0], METHODS[method](), start, key, scale.of(STEPS))

    runs = jax.jit(jax.vmap(jax.vmap(one), (0, None)))
    return jax.device_get(runs(every, data))


def check(scale: Scale) -> Finding:
    """Count the runs that end with parameters that are not finite."""
    lengths = LENGTHS[:1] if scale.quick else LENGTHS
    rows, lost, unsound = [], {}, {}
    for length in lengths:
        for method in METHODS:
            found = run(method, length, scale)
            broken = ~found.finite | ~np.isfinite(found.held_out)
            lost[method, length] = broken.sum(1)
            unsound[method, length] = (~found.finite).sum()
            shown = [
                f"{count}/{scale.seeds}, {_median(losses)}"
                for count, losses in zip(broken.sum(1), found.held_out, strict=True)
            ]
            rows.append((str(length), method, *shown))

    def explodes(method: str, at_least: float) -> np.ndarray:
        return np.array([lost[method, length][1:] >= at_least for length in lengths])

    half = explodes("none", scale.seeds / 2)
    bare: Answer = HOLDS if half.all() else OPEN if half.any() else FAILS
    return Finding(
        title="Exploding gradients of a recurrent network, and a limit on their norm",
        source="Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063",
        measured=(
            f"A ReLU network (32 units) on the adding problem, SGD at {RATE:g}, batches of 20, "
            f"{scale.of(STEPS)} steps, {scale.seeds} seeds. Seeds that are lost, with "
            "parameters or a held-out loss that are not finite at the end, and the median of that "
            "loss (0.167: always the mean)."
        ),
        remark=(
            "The guard judges by history, and the first gradients have none. At a radius of 2 the "
            "first gradient has a norm of up to 4e11 and passes. One SGD step with it leads to a "
            "point where no loss is finite, and everything after it is rejected. Plain SGD on such "
            "a model needs `gs.govern` around the guard, whose first step depends on the size of "
            "the parameters, or a fixed limit in addition to the default rule: "
            "`gs.guard(tx, gs.rules.global_norm(1.0), gs.rules.log_mad())`."
        ),
        headings=("length", "against it", *(f"radius {radius:g}" for radius in RADII)),
        rows=rows,
        verdicts=(
            Verdict(
                "Without a clip, SGD is lost above a spectral radius of 1",
                "at least half of the seeds are lost at each radius of 1.5 and above",
                bare,
            ),
            *(
                Verdict(
                    f"{method}: no run is lost",
                    "all seeds are finite at each radius and length",
                    HOLDS if all(lost[method, n].sum() == 0 for n in lengths) else FAILS,
                )
                for method in METHODS
                if method != "none"
            ),
            Verdict(
                "gs.guard: parameters stay finite, even if the run is lost",
                "they are in all runs with it",
                HOLDS if all(unsound["gs.guard", n] == 0 for n in lengths) else FAILS,
            ),
        ),
    )


def _median(losses: np.ndarray) -> str:
    return f"{np.median(losses):.3g}"
