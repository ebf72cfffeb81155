"""Runs without an illness; their docstrings say what might look like one."""

import optax

import gradstable as gs
from benchmarks.illnesses.case import Case, case, warm_cosine
from benchmarks.illnesses.tasks import STEPS, coins, density, digits, language, sine


@case
def adamw_cosine(seed: int) -> Case:
    """Nothing: AdamW with warm-up and a cosine, in the guard."""
    return Case(
        digits(seed),
        gs.guard(optax.adamw(warm_cosine(5e-3))),
        config={"b2": 0.999, "learning_rate": 5e-3, "warmup_steps": 16},
    )


@case
def warmed_up(seed: int) -> Case:
    """Nothing: a deep network at a high learning rate, which warm-up makes stable."""
    return Case(
        digits(seed, widths=(32,) * 4),
        optax.adam(warm_cosine(0.1)),
        config={"learning_rate": 0.1, "warmup_steps": 16},
    )


@case
def sgd_momentum(seed: int) -> Case:
    """Nothing: plain SGD with momentum, without a guard and without settings."""
    return Case(digits(seed), optax.sgd(0.05, momentum=0.9))


@case
def small_batch(seed: int) -> Case:
    """Nothing: batches of four are noisy, and that is all."""
    return Case(digits(seed, size=4), gs.guard(optax.adam(2e-3)), config={"b2": 0.999})


@case
def fits_exactly(seed: int) -> Case:
    """Nothing: a fit without noise, whose loss, gradient, and learning rate fall to nearly zero."""
    return Case(sine(seed), optax.adam(optax.cosine_decay_schedule(0.02, STEPS)))


@case
def letters(seed: int) -> Case:
    """Nothing: a tiny language model with the settings of a large one."""
    return Case(
        language(seed),
        gs.guard(optax.adamw(warm_cosine(1e-2), b2=0.95)),
        config={"b2": 0.95, "learning_rate": 1e-2, "warmup_steps": 16},
    )


@case
def silent_lion(seed: int) -> Case:
    """Nothing: Lion, without the loss."""
    tx = gs.guard(optax.lion(warm_cosine(5e-4)))
    return Case(digits(seed), tx, tells_loss=False)


@case
def sensible_clip(seed: int) -> Case:
    """Nothing: a fixed limit that is rarely exceeded after the beginning."""
    tx = gs.guard(optax.sgd(0.1), gs.rules.global_norm(1.5))
    return Case(digits(seed, size=16), tx, config={"learning_rate": 0.1})


@case
def hardly_learnable(seed: int) -> Case:
    """Nothing: parameters that start at zero, so that updates are relatively large at first."""
    return Case(coins(seed), gs.guard(optax.adam(0.01)), steps=72, config={"learning_rate": 0.01})


@case
def likelihood(seed: int) -> Case:
    """Nothing: a loss that goes through zero, where multiples of it mean nothing."""
    tx = gs.guard(optax.adam(optax.cosine_decay_schedule(0.06, 72)))
    return Case(density(seed), tx, steps=72)
