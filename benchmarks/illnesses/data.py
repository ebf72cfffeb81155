"""What comes with the data, the numbers or the log."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradstable as gs
from benchmarks.illnesses.case import Case, case
from benchmarks.illnesses.faults import blank, brighter, nan_pixel, places, spoil
from benchmarks.illnesses.tasks import STEPS, Batch, Task, digits


@case
def bad_batches(seed: int) -> Case:
    """Three batches from a sensor with a gain of 300."""
    task = spoil(digits(seed), brighter(300.0), places(seed, 3))
    return Case(task, gs.guard(optax.adamw(2e-3)), config={"b2": 0.999})


@case
def bad_batches_bare(seed: int) -> Case:
    """Three batches with a gain of 30, and nothing that rejects them: Adam continues after each."""
    task = spoil(digits(seed), brighter(30.0), places(seed, 3))
    return Case(task, optax.adam(5e-4, b2=0.95))


@case
def half_precision(seed: int) -> Case:
    """Float16 with a loss scale that doubles every eight steps: only the gradient overflows."""
    task = digits(seed)

    def loss(params: Any, batch: Batch) -> jax.Array:
        low = jax.tree.map(lambda x: x.astype(jnp.float16), params)
        return task.loss(low, {**batch, "x": jnp.asarray(batch["x"], jnp.float16)})

    return Case(
        task._replace(loss=loss),
        gs.guard(optax.adam(3e-4)),
        loss_scale=2.0**15,
        scale_grows_every=8,
        config={"compute_dtype": "float16", "loss_scale": "dynamic, from 32768"},
    )


def rooted(task: Task) -> Task:
    """Return the task with the norm of each projected image in the loss; its root breaks at 0."""

    def loss(params: Any, batch: Batch) -> jax.Array:
        projected = batch["x"] @ params["dense_0"]["kernel"]
        return task.loss(params, batch) + 1e-3 * jnp.mean(jnp.sqrt(jnp.sum(projected**2, axis=1)))

    return task._replace(loss=loss)


@case
def root_at_zero(seed: int) -> Case:
    """Three batches with a blank image, whose norm is 0 and has no derivative there."""
    task = spoil(rooted(digits(seed)), blank, places(seed, 3, of=60))
    return Case(task, gs.guard(optax.adam(2e-3)), steps=60)


@case
def root_at_zero_bare(seed: int) -> Case:
    """One batch with a blank image, and no guard."""
    task = spoil(rooted(digits(seed)), blank, places(seed, 1, of=60))
    return Case(task, optax.adam(2e-3), steps=60)


@case
def missing_values(seed: int) -> Case:
    """Four batches with a NaN pixel, in the guard."""
    task = spoil(digits(seed), nan_pixel, places(seed, 4))
    return Case(task, gs.guard(optax.adamw(2e-3)))


@case
def missing_value_bare(seed: int) -> Case:
    """One batch with a NaN pixel, and no guard."""
    return Case(spoil(digits(seed), nan_pixel, places(seed, 1)), optax.adamw(2e-3))


@case
def broken_feed(seed: int) -> Case:
    """NaN in every batch from some step on, to the end."""
    first = places(seed, 1)[0]
    task = spoil(digits(seed), nan_pixel, range(min(first, 90), STEPS + 1))
    return Case(task, gs.guard(optax.adamw(2e-3)))


@case
def overwritten(seed: int) -> Case:
    """Nothing but a log that is called every 40 steps, with a recorder of 32."""
    return Case(digits(seed), gs.guard(optax.adam(2e-3)), calls_every=40, capacity=32)


@case
def killed(seed: int) -> Case:
    """Nothing but a process that ended without closing its log."""
    return Case(digits(seed), gs.guard(optax.adam(2e-3)), steps=60, closes=False)


@case
def begun(seed: int) -> Case:
    """Nothing but a run of twelve steps."""
    return Case(digits(seed), gs.guard(optax.adam(2e-3)), steps=12)
