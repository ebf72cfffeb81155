"""What comes back, or comes in a row, and what recovery does about it."""

from dataclasses import replace

import numpy as np
import optax

import gradstable as gs
from benchmarks.illnesses.case import Case, case
from benchmarks.illnesses.faults import brighter, heavier, places, spoil
from benchmarks.illnesses.tasks import STEPS, digits


@case
def heavy_minority(seed: int) -> Case:
    """One batch in eight belongs to a part of the data whose loss counts 100 times."""
    rare = np.flatnonzero(np.random.default_rng([seed, 5]).random(STEPS) < 1 / 8)
    return Case(spoil(digits(seed), heavier(100.0), rare), gs.guard(optax.adamw(2e-3)))


@case
def starved_minority(seed: int) -> Case:
    """One batch in eight as before, and a guard that goes on rejecting them."""
    rule = gs.rules.log_mad(reject_recurring=True)
    return replace(heavy_minority(seed), tx=gs.guard(optax.adamw(2e-3), rule))


@case
def bad_stretch(seed: int) -> Case:
    """Ten batches in a row from a sensor with a gain of 300."""
    first = places(seed, 1)[0]
    task = spoil(digits(seed), brighter(300.0), range(first, first + 10))
    return Case(task, gs.guard(optax.adamw(2e-3)))


@case
def rolled_back_in_vain(seed: int) -> Case:
    """Three stretches with ever higher gains, where an earlier state is no better.

    With one copy, a return cannot be undone.
    """
    task = digits(seed)
    for first, gain in ((40, 30.0), (65, 1e3), (90, 3e4)):
        task = spoil(task, brighter(gain), range(first, first + 20))
    tx = gs.rollback(gs.guard(optax.adamw(2e-3)), every=10, patience=6, copies=1)
    return Case(task, gs.backoff(tx), steps=130)
