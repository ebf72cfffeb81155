"""Two effects of published rules on norms, by their own arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradstable_gauntlet.contestants import as_published

from benchmarks.claims.finding import FAILS, HOLDS, Finding, Scale, Verdict

RISE_AT, LAST = 1000, 1000


def through(tx: optax.GradientTransformation, norms: np.ndarray) -> np.ndarray:
    """Return the norms after a transform, as a single number per step."""

    def step(state: Any, norm: jax.Array) -> tuple[Any, jax.Array]:
        updates: Any
        updates, state = tx.update({"w": norm[None]}, state)
        return state, jnp.abs(updates["w"][0])

    start = tx.init({"w": jnp.zeros(1)})
    return np.asarray(jax.jit(lambda x: jax.lax.scan(step, start, x)[1])(jnp.asarray(norms)))


def after_rise(rise: float, noise: float, steps: int) -> tuple[float, float]:
    """Return the fraction ZClip clips long after a lasting rise, and the mean norm it leaves."""
    scatter = np.exp(noise * np.random.default_rng(0).standard_normal(RISE_AT + steps))
    norms = np.where(np.arange(RISE_AT + steps) < RISE_AT, 1.0, rise) * scatter
    norms = norms.astype(np.float32)
    left = through(as_published.zclip(max_norm=None), norms)[-LAST:]
    return float(np.mean(left < norms[-LAST:])), float(left.mean())


def spike_gain(steps: int) -> np.ndarray:
    """Return GradientStabilizer's norms from a x1000 spike on, in units of the earlier norms."""
    norms = np.ones(steps + 5, np.float32)
    norms[steps] = 1000.0
    left = through(as_published.gradient_stabilizer(), norms)
    return left[steps:] / left[steps - 1]


def check(scale: Scale) -> Finding:
    """Run both on the same norms every time."""
    steps = max(2 * LAST, scale.of(4000))
    cases = [(2.0, 0.05), (2.0, 0.2), (3.0, 0.2)]
    shares = {case: after_rise(*case, steps) for case in cases}
    gains = spike_gain(10_000)
    rows = [
        (
            f"ZClip: norms scatter by {100 * noise:.0f} %, and rise to {rise:g} for good",
            f"{100 * share:.1f} % clipped, to {mean:.2f}",
        )
        for (rise, noise), (share, mean) in shares.items()
    ]
    text = ", ".join(f"{gain:.1f}" for gain in gains)
    rows.append(("GradientStabilizer: a norm of 1000 among norms of 1", f"{text} times the usual"))
    return Finding(
        title="What published rules do to norms",
        source="arXiv:2504.02507 and arXiv:2502.17055; the claims are those of this project",
        measured=(
            f"The rules as published, ZClip without its fixed limit: the last {LAST} of {steps} "
            "steps after a rise; and the norms that are left of a spike and of the four steps "
            "after it."
        ),
        headings=("case", "outcome"),
        rows=rows,
        verdicts=(
            Verdict(
                "ZClip locks in after a lasting rise of the norm by 2 (scatter 5 %)",
                "more than 99 % of the last 1000 steps are clipped",
                HOLDS if shares[2.0, 0.05][0] > 0.99 else FAILS,
            ),
            Verdict(
                "GradientStabilizer answers a x1000 spike by a step of 12.7 times the usual",
                "within 5 %",
                HOLDS if abs(gains[0] / 12.7 - 1.0) < 0.05 else FAILS,
            ),
        ),
    )
