"""QK-norm, z-loss, and warm-up are claimed to reduce rate sensitivity (Wortsman 2023)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from benchmarks.claims.finding import CLEARLY, Finding, Scale, Verdict, interval, judge
from benchmarks.claims.models import decoder
from benchmarks.claims.training import keys_of, train

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
HIGH, STEPS, SEEDS = 3, 300, 6  # the last three rates are the high ones


class Variant(NamedTuple):
    """The stability measures."""

    qk_norm: bool = False
    z_loss: float = 0.0
    warm_up: float = 0.05  # fraction of all steps


VARIANTS = {
    "reference": Variant(),
    "QK-norm": Variant(qk_norm=True),
    "z-loss 1e-4": Variant(z_loss=1e-4),
    "no warm-up": Variant(warm_up=0.0),
    "warm-up 25 %": Variant(warm_up=0.25),
}
# What is claimed to be less sensitive than what.
PAIRS = {
    "QK-norm": "reference",
    "z-loss 1e-4": "reference",
    "warm-up 25 %": "no warm-up",
}


def sensitivity(losses: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the mean over rates of ``min(loss, start) - best`` for losses ``[rates, seeds]``."""
    return excess(losses, start).mean(0)


def excess(losses: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return ``min(loss, start) - best`` (``[rates, seeds]``)."""
    return np.minimum(losses, start) - losses.min(0)


def run(seeds: int, steps: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return held-out losses ``[rates, seeds]``, and those at the start, of each variant."""
    start, data = keys_of(seeds)

    def one(variant: Variant, rate: jax.Array, key: jax.Array, batches: jax.Array) -> Any:
        model = decoder(qk_norm=variant.qk_norm, z_loss=variant.z_loss)
        rising = jnp.maximum(variant.warm_up * steps, 1.0)

        def schedule(count: ArrayLike) -> jax.Array:
            done = jnp.asarray(count, jnp.float32)
            falling = 0.5 * (1.0 + jnp.cos(jnp.pi * done / steps))
            return rate * jnp.minimum(1.0, (done + 1.0) / rising) * falling

        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95))
        params = model.init(key)
        return train(model, tx, params, batches, steps).held_out, model.held_out(params)

    over_seeds = jax.vmap(one, (None, None, 0, 0))
    every = jax.jit(jax.vmap(over_seeds, (None, 0, None, None)))
    rates = jnp.asarray(RATES)
    # One program for all variants: the differences are traced.
    return {
        name: jax.device_get(every(jax.tree.map(jnp.asarray, variant), rates, start, data))
        for name, variant in VARIANTS.items()
    }


def check(scale: Scale) -> Finding:
    """Compare the sensitivities of pairs, seed by seed."""
    seeds, steps = min(scale.seeds, SEEDS), scale.of(STEPS)
    found = run(seeds, steps)
    whole = {name: sensitivity(*each) for name, each in found.items()}
    high = {name: excess(*each)[-HIGH:].mean(0) for name, each in found.items()}
    rows = [
        (
            name,
            interval(whole[name]),
            interval(high[name]),
            f"{np.median(losses.min(0)):.3f}",
            " ".join(f"{loss:.2f}" for loss in np.median(losses, axis=1)),
        )
        for name, (losses, _) in found.items()
    ]
    return Finding(
        title="Sensitivity to the learning rate",
        source="Wortsman et al. 2023, arXiv:2309.14322",
        measured=(
            "A decoder of two layers (width 32, context 24) on the characters of Python's help, "
            "AdamW (0.9, 0.95) clipped to 1, cosine, a warm-up of 5 % where nothing else is said, "
            f"{steps} steps, {seeds} seeds. Sensitivity is the mean over seven rates from 3e-4 to "
            "3e-1 of min(loss, loss at the start) less the best loss, on held-out text; high: over "
            "the rates of 3e-2 and above alone, where low rates that have not learned yet play "
            "no part."
        ),
        headings=("variant", "sensitivity", "high", "best", "loss by rate"),
        rows=rows,
        verdicts=[
            Verdict(
                f"{better} is less sensitive than {worse}{where}",
                CLEARLY,
                judge(of[worse] - of[better], of[worse].mean()),
            )
            for better, worse in PAIRS.items()
            for where, of in (("", whole), (" at high rates", high))
        ],
    )
