"""How well a training run survives occasionally corrupted gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradstable_gauntlet.contestants import CONTESTANTS

from benchmarks.claims.finding import CLEARLY, Finding, Scale, Verdict, interval, judge
from benchmarks.claims.models import digits
from benchmarks.claims.training import keys_of, train

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
STEPS, TUNING = 600, 3
# How often, and how many times the gradient norm.
STORMS = {"clean": (0.0, 1.0), "1 % x1000": (0.01, 1000.0), "10 % x50": (0.1, 50.0)}
METHODS = {
    "none": "adamw",
    "clip to 1": "clip",
    "ZClip": "zclip",
    "AdaGC": "adagc",
    "GradientStabilizer": "gradient_stabilizer",
    "mean + 6 sigma": "skip_on_spikes",
    "gs.guard": "gs.guard(adamw)",
}
OURS = "gs.guard"


def corrupt(gradient: Any, key: jax.Array, often: jax.Array, size: jax.Array) -> Any:
    """Return the gradient, or a random direction of ``size`` times its norm instead."""
    leaves, structure = jax.tree.flatten(gradient)
    strikes, *keys = jax.random.split(key, len(leaves) + 1)
    noise = [jax.random.normal(k, g.shape) for k, g in zip(keys, leaves, strict=True)]
    factor = size * optax.tree.norm(leaves) / optax.tree.norm(noise)
    bad = jax.random.uniform(strikes) < often
    mixed = [jnp.where(bad, factor * n, g) for n, g in zip(noise, leaves, strict=True)]
    return jax.tree.unflatten(structure, mixed)


def run(method: str, seeds: int, steps: int) -> dict[str, tuple[float, np.ndarray]]:
    """Return the tuned rate, and the losses at it ``[seeds]``, for each storm."""
    model, contestant = digits(), CONTESTANTS[METHODS[method]]
    start, data = keys_of(seeds + TUNING)

    def one(storm: jax.Array, rate: jax.Array, key: jax.Array, batches: jax.Array) -> jax.Array:
        def spoil(gradient: Any, key: jax.Array) -> Any:
            return corrupt(gradient, key, storm[0], storm[1])

        tx = contestant.make(lambda count: rate + 0.0 * count)
        return train(model, tx, model.init(key), batches, steps, corrupt=spoil).held_out

    over_seeds = jax.vmap(one, (None, None, 0, 0))
    every = jax.jit(jax.vmap(over_seeds, (None, 0, None, None)))
    found = {}
    for name, storm in STORMS.items():
        losses = np.asarray(every(jnp.asarray(storm), jnp.asarray(RATES), start, data))
        best = int(np.argmin(losses[:, :TUNING].mean(1)))
        found[name] = (RATES[best], losses[best, TUNING:])
    return found


def check(scale: Scale, methods: tuple[str, ...] = tuple(METHODS)) -> Finding:
    """Compare all methods at the best rate of each, in each storm."""
    seeds, steps = max(scale.seeds, 2), scale.of(STEPS)
    found = {method: run(method, seeds, steps) for method in methods}
    rows = [
        (
            method,
            *(f"{interval(losses)} (at {rate:g})" for rate, losses in found[method].values()),
        )
        for method in methods
    ]
    verdicts = []
    for storm in list(STORMS)[1:]:
        for method in (name for name in ("GradientStabilizer", OURS) if name in methods):
            rivals = [name for name in methods if name not in (method, OURS)]
            best = min(rivals, key=lambda name: found[name][storm][1].mean())
            other, own = found[best][storm][1], found[method][storm][1]
            verdicts.append(
                Verdict(
                    f"{method} ends lower than every published rival, {storm} (best: {best})",
                    CLEARLY,
                    judge(other - own, other.mean()),
                )
            )
    return Finding(
        title="Corrupted gradients",
        source="Huang et al. 2025, arXiv:2502.17055 (its noise test); the guard's own claim",
        measured=(
            "A network of two layers (32 units) on handwritten digits with smoothed labels, AdamW "
            f"(0.9, 0.95), {steps} steps; occasionally a random direction of many times the norm "
            f"replaces the gradient. Held-out loss over {seeds} seeds, at the best of "
            f"{len(RATES)} rates, tuned for each method and each storm on {TUNING} other seeds. "
            "Published methods are as published."
        ),
        headings=("against it", *STORMS),
        rows=rows,
        verdicts=verdicts,
    )
