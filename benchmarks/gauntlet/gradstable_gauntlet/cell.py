"""One contestant in one task: tune its rate in calm weather, then send it through the storms."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.measures import spike_score, steps_lost, steps_to_recover
from gradstable_gauntlet.results import Cell, Fate
from gradstable_gauntlet.run import Runner, Trace, final_losses, member, runner
from gradstable_gauntlet.storms import Storm, Weather, calm, last_fault, weather_of
from gradstable_gauntlet.sweeps import best_rate
from gradstable_gauntlet.task import Task

CURVE_POINTS = 60


class Plan(NamedTuple):
    """How much of each cell is run; the same for every contestant.

    Attributes:
      rates: learning rates to choose from.
      tuning_seeds: the seeds with which they are tried.
      seeds: the seeds for the storms; different ones, so that nothing reported was tuned on.
      width: the number of runs computed side by side.
    """

    rates: tuple[float, ...] = tuple(float(f"{10**x:.3g}") for x in np.arange(-4, 0.1, 0.5))
    tuning_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    width: int = 60


def run_cell(
    names: tuple[str, str],
    make_task: Callable[..., Task],
    contestant: Contestant,
    storms: Mapping[str, Storm],
    plan: Plan,
) -> Cell:
    """Run a contestant in a task. ``storms`` must include ``"none"``, the reference for others."""
    began = time.perf_counter()
    task = make_task()
    run = runner(task, contestant, width=plan.width)
    sweep, start = _sweep(run, task.steps, plan)
    rate = plan.rates[best_rate(sweep)]
    traces: dict[str, Trace] = {}
    weathers: dict[str, list[Weather]] = {
        name: [weather_of(name, storm, steps=task.steps, seed=seed) for seed in plan.seeds]
        for name, storm in storms.items()
    }
    for dtype in dict.fromkeys(storm.dtype for storm in storms.values()):
        chosen = [name for name, storm in storms.items() if storm.dtype == dtype]
        if dtype != "float32":
            many = len(chosen) * len(plan.seeds)
            run = runner(make_task(dtype=jnp.dtype(dtype)), contestant, width=many)
        members = [
            member(seed=seed, rate=rate, weather=weather)
            for name in chosen
            for seed, weather in zip(plan.seeds, weathers[name], strict=True)
        ]
        whole = run(members)
        for at, name in enumerate(chosen):
            here = slice(at * len(plan.seeds), (at + 1) * len(plan.seeds))
            traces[name] = Trace(*(leaf[here] for leaf in whole))
    fates = {name: _fate(traces[name], traces["none"], weathers[name]) for name in storms}
    seconds = time.perf_counter() - began
    return Cell(*names, sweep=sweep, start=start, rate=rate, fates=fates, seconds=seconds)


def _sweep(run: Runner, steps: int, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    grid = [(rate, seed) for rate in plan.rates for seed in plan.tuning_seeds]
    traces = run([member(seed=seed, rate=rate, weather=calm(steps)) for rate, seed in grid])
    shape = len(plan.rates), len(plan.tuning_seeds)
    return final_losses(traces).reshape(shape), np.asarray(traces.start).reshape(shape)[0]


def _fate(trace: Trace, calm_trace: Trace, weathers: Sequence[Weather]) -> Fate:
    losses = np.stack([_sound(*pair) for pair in zip(trace.losses, weathers, strict=True)])
    clean = np.asarray(calm_trace.losses, np.float64)
    points = np.linspace(0, losses.shape[-1] - 1, min(CURVE_POINTS, losses.shape[-1])).astype(int)
    recovery = [
        steps_to_recover(curve, reference, last_fault(weather))
        for curve, reference, weather in zip(losses, clean, weathers, strict=True)
    ]
    return Fate(
        final=final_losses(trace),
        finite=np.asarray(trace.finite),
        touched=np.asarray(trace.touched, np.float64),
        lost=np.array([steps_lost(*pair) for pair in zip(losses, clean, strict=True)], np.float64),
        recovery=np.array(recovery, np.float64),
        spikes=np.asarray(spike_score(losses), np.float64),
        curve=np.median(np.where(np.isfinite(losses), losses, np.inf), axis=0)[points],
    )


def _sound(losses: np.ndarray, weather: Weather) -> np.ndarray:
    """Return the losses, with the previous loss for steps whose batch is broken.

    The loss of a broken batch says nothing about the model.
    """
    broken = (np.asarray(weather.inputs) != 1.0) | (np.asarray(weather.targets) != 1.0)
    known = np.maximum.accumulate(np.where(broken, -1, np.arange(losses.size)))
    return np.where(known >= 0, np.asarray(losses, np.float64)[np.maximum(known, 0)], np.nan)
