"""Illnesses of the learning rate, the moments, the initial parameters, or a rule."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from benchmarks.illnesses.case import Case, case, warm_cosine
from benchmarks.illnesses.faults import heavier, places, spoil
from benchmarks.illnesses.tasks import STEPS, Batch, cross_entropy, digits, line, sine


@case
def too_fast_adam(seed: int) -> Case:
    """Adam with a learning rate of 1, which wrecks the parameters in a few steps."""
    tx = gs.guard(optax.adam(1.0))
    return Case(digits(seed), tx, config={"learning_rate": 1.0, "b2": 0.999})


@case
def too_fast_adamw(seed: int) -> Case:
    """AdamW with a learning rate of 0.3: it learns, but stays noisy to the end."""
    return Case(digits(seed), optax.adamw(0.3, weight_decay=0.1), config={"learning_rate": 0.3})


@case
def too_fast_governed(seed: int) -> Case:
    """AdamW at hundreds of times its best learning rate, in a trust region."""
    return Case(digits(seed), gs.govern(gs.guard(optax.adamw(1.0))))


@case
def too_fast_sgd(seed: int) -> Case:
    """SGD at several times the largest stable learning rate, and no guard."""
    return Case(sine(seed, size=32, noise=0.3), optax.sgd(0.5))


@case
def creeping_sgd(seed: int) -> Case:
    """SGD a twentieth above the largest stable rate: the loss grows by a fifth per step."""
    task = line(seed, noise=1.0)
    x = np.c_[np.ones(64), task.batch(1)["x"]]
    largest_stable = 64 / np.linalg.eigvalsh(x.T @ x)[-1]
    return Case(task, optax.sgd(1.05 * largest_stable), steps=80)


@case
def schedule_glitch(seed: int) -> Case:
    """Three steps for which the schedule gives a hundred times the learning rate."""
    first = places(seed, 1)[0]

    def schedule(count: Any) -> jax.Array:
        return jnp.where((count >= first) & (count < first + 3), 0.4, 0.004)

    return Case(digits(seed), optax.adam(schedule), config={"learning_rate": 0.004})


@case
def stale_moment(seed: int) -> Case:
    """Adam with b2 = 0.999 far into a fit: the second moment lags, and the loss spikes."""
    tx = optax.adam(0.05)
    return Case(sine(seed), tx, steps=440, first=260, config={"b2": 0.999, "learning_rate": 0.05})


@case
def no_warmup(seed: int) -> Case:
    """Full learning rate from the first step on, for Adam on a deep network."""
    return Case(
        digits(seed, widths=(32,) * 4),
        optax.adam(warm_cosine(0.1, warmup=0)),
        config={"learning_rate": 0.1, "warmup_steps": 0},
    )


@case
def loud_init(seed: int) -> Case:
    """Four layers with initial parameters twelve times too large."""
    task = digits(seed, widths=(32, 24, 24), gain=300.0)
    return Case(task, gs.guard(optax.adamw(warm_cosine(0.02))), config={"warmup_steps": 16})


@case
def shrinking_layer(seed: int) -> Case:
    """Strong weight decay starts on a normalized layer: its gradient grows as it shrinks."""
    task = digits(seed, widths=(32, 24))

    def loss(params: Any, batch: Batch) -> jax.Array:
        kernel = params["dense_1"]["kernel"]
        unit = 6.0 * kernel / jnp.linalg.norm(kernel)
        return task.loss({**params, "dense_1": {**params["dense_1"], "kernel": unit}}, batch)

    group = {name: {"bias": "rest", "kernel": "rest"} for name in task.params}
    group["dense_1"]["kernel"] = "normalized"
    decay = optax.inject_hyperparams(optax.add_decayed_weights)(
        weight_decay=lambda count: jnp.where(count < 80 + seed % 10, 0.0, 50.0)
    )
    normalized = optax.chain(decay, optax.sgd(0.002))
    tx = optax.partition({"normalized": normalized, "rest": optax.sgd(0.05)}, group)
    return Case(task._replace(loss=loss), tx, leaf_every=4)


@case
def summed_loss(seed: int) -> Case:
    """From some step on, the loss is summed over 32 examples instead of averaged."""
    first = min(places(seed, 1)[0], 60)
    task = spoil(digits(seed), heavier(32.0), range(first, 151))
    return Case(task, gs.guard(optax.adam(2e-3, b2=0.95)), steps=150)


@case
def locked(seed: int) -> Case:
    """From some step on, losses weigh 1000 times as much, with a rule that never adapts."""
    first = min(places(seed, 1)[0], 80)
    task = spoil(digits(seed), heavier(1000.0), range(first, STEPS + 1))
    return Case(task, gs.guard(optax.adam(2e-3), gs.rules.ema_multiple(start=None)))


@case
def tight_clip(seed: int) -> Case:
    """Too low a limit: a twelfth of the usual norm."""
    tx = gs.guard(optax.sgd(1.0), gs.rules.global_norm(0.05))
    return Case(digits(seed), tx, steps=60)


@case
def frozen(seed: int) -> Case:
    """Learning rate in the wrong unit: 2e-9."""
    tx = gs.guard(optax.adam(2e-9))
    return Case(digits(seed), tx, steps=60, config={"learning_rate": 2e-9})


@case
def saturated(seed: int) -> Case:
    """Hidden units that are all off, and an output without bias: no gradient at all."""
    task = digits(seed)
    params = {**task.params, "dense_0": {**task.params["dense_0"], "bias": jnp.full(32, -100.0)}}

    def loss(params: Any, batch: Batch) -> jax.Array:
        hidden = jax.nn.relu(batch["x"] @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
        return cross_entropy(hidden @ params["dense_1"]["kernel"], batch)

    return Case(task._replace(params=params, loss=loss), gs.guard(optax.adam(2e-3)), steps=60)
