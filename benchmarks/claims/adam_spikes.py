"""Spikes of Adam: slow second moments cause them, and RMS_t is claimed to announce them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.claims.finding import (
    CLEARLY,
    FAILS,
    HOLDS,
    OPEN,
    Answer,
    Finding,
    Scale,
    Verdict,
    interval,
    judge,
)
from benchmarks.claims.models import sines
from benchmarks.claims.training import keys_of

RATES, STEPS, WINDOW, EARLY = (0.01, 0.03), 6000, 100, 8
SETTINGS = {
    "b2 = 0.999": (0.999, 1e-8),
    "b2 = 0.95": (0.95, 1e-8),
    "b2 = 0.9": (0.9, 1e-8),
    "b2 = 0.999, eps = 0.1": (0.999, 0.1),
}
# The alarm threshold of Wortsman et al., and the level of steady noise.
ALARMS = (2.3, 1.0)


def trajectories(seeds: int, steps: int) -> dict[tuple[float, str], tuple[np.ndarray, np.ndarray]]:
    """Return losses and the largest RMS_t of a leaf (``[seeds, steps]``) by rate and setting."""
    model = sines()
    start, _ = keys_of(seeds)

    def one(rate: jax.Array, b2: jax.Array, eps: jax.Array, key: jax.Array) -> Any:
        tx = optax.adam(rate, b2=b2, eps=eps)
        params = model.init(key)

        def step(carry: Any, count: jax.Array) -> Any:
            params = carry[0]
            loss, gradient = jax.value_and_grad(model.held_out)(params)
            state: Any
            updates, state = tx.update(gradient, carry[1], params)
            nu = jax.tree.map(lambda v: v / (1.0 - b2 ** (count + 1.0)), state[0].nu)
            rms = jax.tree.map(
                lambda g, v: jnp.sqrt(jnp.mean(g * g / jnp.maximum(v, eps**2))), gradient, nu
            )
            largest = jnp.max(jnp.stack(jax.tree.leaves(rms)))
            return (optax.apply_updates(params, updates), state), (loss, largest)

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[1]

    run = jax.jit(jax.vmap(one, (None, None, None, 0)))
    return {
        (rate, name): jax.device_get(run(rate, b2, eps, start))
        for rate in RATES
        for name, (b2, eps) in SETTINGS.items()
    }


def spikes_of(losses: np.ndarray) -> np.ndarray:
    """Return where a loss exceeds twice the median of the previous 100, once in 50 steps."""
    past = _windows(losses)
    return starts_of(losses[WINDOW:] > 2.0 * np.median(past, axis=1), 50) + WINDOW


def published_spikes_of(losses: np.ndarray) -> np.ndarray:
    """Return where a loss exceeds the previous mean plus 3.2 sigma, at least twice in ten steps."""
    past = _windows(losses)
    above = losses[WINDOW:] > past.mean(1) + 3.2 * past.std(1)
    starts = starts_of(above, 10)
    return np.array([t for t in starts if above[t : t + 10].sum() >= 2], int) + WINDOW


def starts_of(events: np.ndarray, quiet: int) -> np.ndarray:
    """Return the events that come more than ``quiet`` steps after the previous one."""
    where = np.flatnonzero(events)
    if not where.size:
        return where
    return where[np.diff(where, prepend=-(10**9)) > quiet]


def _windows(losses: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(losses, WINDOW)[:-1]


class Leads(NamedTuple):
    """When the alarms of a run occurred, relative to its spikes."""

    before: np.ndarray  # shape=(spikes,), steps from the last alarm to the spike; inf: none
    after: np.ndarray  # shape=(spikes,), steps from the spike to the next alarm; inf: none
    chance: float  # that a random step has an alarm in the eight steps before it


def leads(losses: np.ndarray, rms: np.ndarray, alarm: float) -> Leads:
    """Return how far each spike is from the alarms around it; one at its own step is after it."""
    spikes, alarms = published_spikes_of(losses), starts_of(rms > alarm, 10)
    soon = np.zeros(losses.size + EARLY + 1, bool)
    for at in alarms:
        soon[at + 1 : at + EARLY + 1] = True
    known = np.concatenate([[-np.inf], alarms, [np.inf]])
    following = np.searchsorted(known, spikes, side="left")
    return Leads(
        before=spikes - known[following - 1],
        after=known[following] - spikes,
        chance=float(soon[WINDOW : losses.size].mean()),
    )


def check(scale: Scale) -> Finding:
    """Count the spikes, and how many of them had an alarm before."""
    steps = max(2 * WINDOW, scale.of(STEPS))
    found = trajectories(scale.seeds, steps)
    counts = {
        case: np.array([spikes_of(each).size for each in losses])
        for case, (losses, _) in found.items()
    }
    totals = {name: np.sum([counts[rate, name] for rate in RATES], axis=0) for name in SETTINGS}
    slow, rows = totals["b2 = 0.999"], []
    for (rate, name), (losses, _) in found.items():
        last = f"{np.median(losses[:, -WINDOW:]):.2g}"
        rows.append((f"{rate:g}", name, interval(counts[rate, name].astype(float), 1), last))
    verdicts = [
        Verdict(
            f"{name} has fewer spikes than b2 = 0.999", CLEARLY, judge(slow - total, slow.mean())
        )
        for name, total in totals.items()
        if name != "b2 = 0.999"
    ]
    for alarm in ALARMS:
        both = [
            leads(loss, top, alarm)
            for rate in RATES
            for loss, top in zip(*found[rate, "b2 = 0.999"], strict=True)
        ]
        before, after = (np.concatenate([getattr(x, of) for x in both]) for of in Leads._fields[:2])
        chance = float(np.mean([each.chance for each in both]))
        early, late = (100 * np.mean(x <= EARLY) if x.size else np.nan for x in (before, after))
        middle = np.median(before[before <= EARLY]) if (before <= EARLY).any() else np.nan
        text = (
            f"{early:.0f} % of {before.size} (by chance {100 * chance:.0f} %), by {middle:.0f} "
            f"steps in the median; {late:.0f} % have it later"
        )
        rows.append(("both", f"alarm at RMS_t > {alarm:g}", text, ""))
        verdicts.append(
            Verdict(
                f"RMS_t above {alarm:g} comes 1 to 8 steps before a spike (b2 = 0.999)",
                "it does for at least half of them, and five times as often as by chance; "
                "decided from at least 20 spikes",
                _leads(float(early) / 100, chance, before.size),
            )
        )
    return Finding(
        title="Spikes of Adam, and the alarm before them",
        source="Bai et al. 2026, arXiv:2506.04805; Wortsman et al. 2023, arXiv:2304.13013",
        measured=(
            "Two layers of 50 tanh units on sin x + sin 4x, all 200 points at once, "
            f"{steps} steps, {scale.seeds} seeds. Spikes per run (loss above twice the median of "
            "the last 100), and the median loss at the end. For alarms, spikes and alarm are "
            "those of Wortsman et al.: loss above mean plus 3.2 sigma of the last 100, twice in "
            "ten; RMS_t of the leaf in which it is largest. The table shows the spikes with an "
            "alarm in the eight steps before, and those with one at the spike or in the eight "
            "after. Their training used large batches; this one has no noise."
        ),
        headings=("rate", "Adam", "spikes", "last loss"),
        rows=rows,
        verdicts=verdicts,
        remark=(
            "RMS_t signals these spikes, but most of them only at the spike or after it. This "
            "does not show whether the lack of batch noise is the reason. An eps of 0.1 removes "
            "all spikes and, at the lower rate, much of the learning."
        ),
    )


def _leads(early: float, chance: float, spikes: int) -> Answer:
    if spikes < 20:
        return OPEN
    return HOLDS if early >= 0.5 and early >= 5.0 * chance else FAILS
