"""Results of a gauntlet that never was run: random, but the same every time."""

import numpy as np
from gradstable_gauntlet.results import Cell, Fate, Results
from gradstable_gauntlet.storms import FAIR_WEATHER

RATES = [float(10**power) for power in np.arange(-5, 0.1, 0.5)]
SEEDS, TUNING_SEEDS, POINTS = 5, 3, 120

TASKS = {
    "deep linear": {"about": "a chain of twelve matrices", "steps": 400, "tuning": True},
    "digits": {"about": "handwritten digits, a network of three layers", "steps": 600},
    "copy": {"about": "a recurrent network that copies <what> it read & waits", "steps": 1000},
}
CONTESTANTS = {
    "adamw": {"about": "Adam with weight decay", "base": "adamw", "ours": False},
    "adamw, clip 1": {"about": "clipped to a norm of 1", "base": "adamw", "ours": False},
    "guard(adamw)": {"about": "the guard", "base": "adamw", "ours": True},
    "stable_adamw": {"about": "both sides", "base": "adamw", "ours": True},
    "sgd": {"about": "momentum 0.9", "base": "sgd", "ours": False},
}
TOUGH = {"adamw": 0.25, "adamw, clip 1": 0.6, "guard(adamw)": 0.97, "stable_adamw": 0.9, "sgd": 0.1}

_SIZES = {"x1e3": "corrupted, finite", "x1e6": "corrupted, finite", "inf": "corrupted, inf or NaN",
          "nan": "corrupted, inf or NaN"}  # fmt: skip
STORMS = {
    "none": {"about": "calm weather", "group": "none"},
    **{
        f"{size} {how}": {"about": f"inputs {size}, {how}", "group": group}
        for size, group in _SIZES.items()
        for how in ("isolated", "bursts", "1 %", "10 %")
    },
    "label explosion": {"about": "targets x1e4 for five steps", "group": "labels"},
    "level shift": {"about": "inputs x10 from the middle on", "group": "level shift"},
    "bad warm-up": {"about": "no warm-up, ten times the rate", "group": "warm-up, rate"},
    "rate x100": {"about": "a hundred times the rate", "group": "warm-up, rate"},
    "float16": {"about": "gradients in float16", "group": "low precision"},
    "bfloat16": {"about": "all in bfloat16", "group": "low precision"},
    "exploding init": {"about": "weights x30", "group": "init"},
    "stale moments": {"about": "a calm stretch, then large gradients", "group": "stale moments"},
}
MADE = {
    "command": "python -m gradstable_gauntlet --seeds 5",
    "versions": {"gradstable": "0.1.0", "jax": "0.10.2", "optax": "0.2.8"},
    "machine": "one H200",
    "seconds": 5025.0,
}


def results(seed: int = 0) -> Results:
    rng = np.random.default_rng(seed)
    cells = [
        _cell(rng, task, contestant, seed)
        for task in TASKS
        for contestant in CONTESTANTS
        if (task, contestant) != ("copy", "sgd")  # not run
    ]
    return Results(MADE, TASKS, CONTESTANTS, STORMS, RATES, cells)


def with_fair_weather() -> Results:
    """Return the same results with a healthy task, in calm weather and in a storm that is none."""
    made = results()
    rng = np.random.default_rng(1)
    cells = [_cell(rng, "digits", contestant, 0) for contestant in CONTESTANTS]
    cells = [
        cell._replace(
            task="heads",
            fates={"none": cell.fates["none"], "curriculum": cell.fates["nan 1 %"]},
        )
        for cell in cells
    ]
    heads = {"about": "two heads on a trunk", "steps": 600, "fair": True}
    curriculum = {"about": "a loss that is large at times", "group": FAIR_WEATHER}
    return made._replace(
        tasks={**TASKS, "heads": heads},
        storms={**STORMS, "curriculum": curriculum},
        cells=[*made.cells, *cells],
    )


def _cell(rng: np.random.Generator, task: str, contestant: str, seed: int) -> Cell:
    tough = TOUGH[contestant]
    floor = 0.05 * (1 + list(TASKS).index(task)) * (1.4 if contestant == "sgd" else 1.0)
    away = np.log10(RATES) + 2.5 - 0.4 * tough
    sweep = floor * np.exp(0.5 * away**2)[:, None] * rng.lognormal(0, 0.03, (11, TUNING_SEEDS))
    sweep = np.minimum(sweep, 2.0)
    sweep[away > 1 + 1.5 * tough] = np.nan if contestant == "adamw" else np.inf
    calm = floor * rng.lognormal(0, 0.02, SEEDS)
    fates = {
        storm: _fate(rng, calm, tough if storm != "none" else 1.0, contestant, storm)
        for storm in STORMS
    }
    best = float(np.asarray(RATES)[np.argmin(np.median(np.where(np.isfinite(sweep), sweep, 9), 1))])
    return Cell(task, contestant, sweep, np.full(TUNING_SEEDS, 2.0), best, fates, 12.5 + seed)


def _fate(
    rng: np.random.Generator, calm: np.ndarray, tough: float, contestant: str, storm: str
) -> Fate:
    alive = rng.random(SEEDS) < tough
    broken = np.where(rng.random(SEEDS) < 0.5, np.nan, calm * rng.lognormal(2, 1, SEEDS))
    final = np.where(alive, calm * rng.lognormal(0.01, 0.02, SEEDS), broken)
    time = np.linspace(0, 1, POINTS)
    curve = calm.mean() + 2 * np.exp(-7 * time) * rng.lognormal(0, 0.05, POINTS)
    if storm != "none" and alive.sum() < 3:
        curve[40:] *= 10 ** (3 * time[:-40])
        curve[80:] = np.nan if rng.random() < 0.5 else np.inf
    known = contestant != "sgd"
    return Fate(
        final=final,
        finite=alive | np.isfinite(broken),
        touched=np.full(SEEDS, 0.0 if storm == "none" else 0.03)
        if known
        else np.full(SEEDS, np.nan),
        lost=np.where(alive, rng.integers(0, 20, SEEDS), 400.0),
        recovery=np.where(alive, rng.integers(1, 30, SEEDS), np.inf),
        spikes=np.where(alive, 0.0, 2.5),
        curve=curve,
    )
