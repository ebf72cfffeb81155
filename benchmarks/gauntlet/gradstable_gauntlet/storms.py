"""The storms: faults of batch, loss, rate, start, dtype and machine, and fair weather.

A storm is data, not code: for every step, the factors on inputs, targets, loss and learning rate.
So one compiled program runs all of them side by side.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class Flips(NamedTuple):
    """Bits that are flipped, step by step, in float32 numbers.

    Attributes:
      gradient: which bits, in the gradient; 0: none.
      params: which bits, in the parameters after the step.
      stride: in every how many-th entry of the tree; 0: in a single one, drawn at random.
    """

    gradient: Any  # shape=(steps,), dtype=uint32
    params: Any  # shape=(steps,), dtype=uint32
    stride: Any  # shape=(steps,), dtype=int32


class Weather(NamedTuple):
    """The faults of a whole run, step by step; all ones if nothing is wrong.

    Attributes:
      inputs: factors on the inputs of the batch.
      targets: factors on its targets.
      loss: factors on the loss, and so exactly on the gradient.
      rate: factors on the learning rate, by step of the loop: a broken scheduler does not wait for
        rejected steps.
      start: factor on the initial parameters.
      flips: faults of the machine; ``None`` if there are none.
    """

    inputs: Any  # shape=(steps,), dtype=float32
    targets: Any  # shape=(steps,), dtype=float32
    loss: Any  # shape=(steps,), dtype=float32
    rate: Any  # shape=(steps,), dtype=float32
    start: Any  # shape=(), dtype=float32
    flips: Flips | None = None


class Storm(NamedTuple):
    """One kind of trouble.

    Attributes:
      make: function from the number of steps and a random generator to the weather of one run.
      group: the group it is counted in by the tables.
      about: what happens, in one line.
      dtype: the dtype in which the model computes.
    """

    make: Callable[[int, np.random.Generator], Weather]
    group: str
    about: str
    dtype: str = "float32"


def calm(steps: int) -> Weather:
    """Return the weather in which nothing is wrong."""
    ones = [np.ones(steps, np.float32) for _ in range(4)]
    return Weather(*ones, start=np.float32(1.0))


def no_flips(steps: int) -> Flips:
    """Return the flips of a machine without faults."""
    none = np.zeros(steps, np.uint32)
    return Flips(none, none, none.astype(np.int32))


def last_fault(weather: Weather) -> int:
    """Return the index of the last step with a fault; -1 if there is none."""
    faults = np.zeros(weather.inputs.shape[-1], bool)
    for series in weather[:4]:
        faults |= np.asarray(series) != 1.0  # a NaN is not 1 either
    if weather.flips is not None:
        faults |= (np.asarray(weather.flips.gradient) | np.asarray(weather.flips.params)) != 0
    steps = np.flatnonzero(faults)
    return int(steps[-1]) if steps.size else -1


def _isolated(steps: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    return np.isin(np.arange(steps), [int(part * steps) for part in (0.35, 0.55, 0.75)])


def _burst(steps: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    begin = steps // 2
    return (np.arange(steps) >= begin) & (np.arange(steps) < begin + 10)


def _at_random(share: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    # Exactly this share, in the last nine tenths: at the start no rule has a history yet.
    first = steps // 10
    number = max(1, round(share * (steps - first)))
    return np.isin(np.arange(steps), first + rng.permutation(steps - first)[:number])


def _multiplied(
    where: Callable[[int, np.random.Generator], np.ndarray], **factors: float
) -> Callable[[int, np.random.Generator], Weather]:
    """Return a storm that applies the named factors at the steps given by ``where``."""

    def make(steps: int, rng: np.random.Generator) -> Weather:
        there = where(steps, rng)
        series = {
            name: np.where(there, factor, 1.0).astype(np.float32)
            for name, factor in factors.items()
        }
        return calm(steps)._replace(**series)

    return make


def _between(begin: float, end: float, steps: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    now = np.arange(steps) / steps
    return (now >= begin) & (now < end)


def _exploding(steps: int, rng: np.random.Generator) -> Weather:
    del rng
    return calm(steps)._replace(start=np.float32(4.0))


def _stretches(steps: int, rng: np.random.Generator) -> np.ndarray:
    del rng
    return np.arange(steps) // max(1, min(250, steps // 6)) % 2 == 1


def _restarts(steps: int, rng: np.random.Generator) -> Weather:
    del rng
    done = 3 * np.arange(steps) / steps % 1.0
    return calm(steps)._replace(rate=(0.5 + 0.5 * np.cos(np.pi * done)).astype(np.float32))


def _no_storm(steps: int, rng: np.random.Generator) -> Weather:
    del rng
    return calm(steps)


_HOW_OFTEN: dict[str, tuple[Callable[[int, np.random.Generator], np.ndarray], str]] = {
    "once": (_isolated, "three batches, far apart"),
    "burst": (_burst, "ten batches in a row"),
    "1%": (partial(_at_random, 0.01), "every hundredth batch"),
    "10%": (partial(_at_random, 0.10), "every tenth batch"),
}
_HOW_BAD = {"1e3": 1e3, "1e6": 1e6, "inf": float("inf"), "nan": float("nan")}
CORRUPTED, NOT_FINITE = "corrupted batch", "inf or NaN in the batch"
FAIR_WEATHER = "fair weather"  # no faults, but what happens in healthy runs

STORMS: dict[str, Storm] = {
    "none": Storm(_no_storm, "calm", "nothing is wrong"),
    **{
        f"batch x {bad}, {often}": Storm(
            _multiplied(where, inputs=factor),
            CORRUPTED if np.isfinite(factor) else NOT_FINITE,
            f"inputs times {bad} in {about}",
        )
        for often, (where, about) in _HOW_OFTEN.items()
        for bad, factor in _HOW_BAD.items()
    },
    "labels x 1e4": Storm(
        _multiplied(partial(_at_random, 0.02), targets=1e4),
        "labels",
        "targets times 10,000 in every fiftieth batch",
    ),
    "loss x 30 for good": Storm(
        _multiplied(partial(_between, 0.4, 2.0), loss=30.0),
        "level shift",
        "after two fifths of the run the loss, and so every gradient, is 30 times as large",
    ),
    "loss / 30 for good": Storm(
        _multiplied(partial(_between, 0.4, 2.0), loss=1 / 30),
        "level shift",
        "after two fifths of the run the loss is a thirtieth",
    ),
    "no warm-up, rate x 10": Storm(
        _multiplied(partial(_between, 0.0, 0.05), rate=10.0),
        "rate",
        "the first twentieth of the steps at ten times the rate",
    ),
    "rate x 100": Storm(
        _multiplied(partial(_between, 0.5, 0.55), rate=100.0),
        "rate",
        "a twentieth of the steps in the middle at a hundred times the rate",
    ),
    "quiet, then loud": Storm(
        _multiplied(partial(_between, 0.2, 0.5), loss=1e-4),
        "stale second moment",
        "the loss is a ten-thousandth for three tenths of the run, then back to normal",
    ),
    "start x 4": Storm(
        _exploding, "exploding start", "all initial parameters are 4 times as large"
    ),
    "bfloat16": Storm(_no_storm, "low precision", "the model computes in bfloat16", "bfloat16"),
    "float16": Storm(_no_storm, "low precision", "the model computes in float16", "float16"),
    "float16, batch x 1e3": Storm(
        _multiplied(partial(_at_random, 0.02), inputs=1e3),
        "low precision",
        "the model computes in float16; inputs times 1000 overflow it in every fiftieth batch",
        "float16",
    ),
    "curriculum": Storm(
        _multiplied(_stretches, loss=30.0),
        FAIR_WEATHER,
        "the loss is 30 times as large for 250 steps of every 500, in short runs for every second "
        "sixth",
    ),
    "warm restarts": Storm(
        _restarts, FAIR_WEATHER, "the rate falls to zero along a cosine and restarts, three times"
    ),
}


def weather_of(name: str, storm: Storm, *, steps: int, seed: int) -> Weather:
    """Return the weather of one run; the same for every contestant."""
    return storm.make(steps, np.random.default_rng([seed, *name.encode()]))
