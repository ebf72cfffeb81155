"""What no optimizer cures: logits and activations without a limit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from benchmarks.illnesses.case import Case, case
from benchmarks.illnesses.recall import normed, recall
from benchmarks.illnesses.tasks import Batch, Task, cross_entropy, digits, forward, images

_STEPS, _EVERY = 104, 8


@case
def growing_attention(seed: int) -> Case:
    """Attention without QK-norm at a high rate: its logits grow until the end."""
    return Case(recall(seed), gs.guard(optax.adam(0.03)), steps=_STEPS, taps_every=_EVERY)


@case
def normed_attention(seed: int) -> Case:
    """Nothing: the same transformer at the same rate, with QK-norm."""
    task = recall(seed, qk_norm=True)
    return Case(task, gs.guard(optax.adam(0.03)), steps=_STEPS, taps_every=_EVERY)


def residual(seed: int, *, normalized: bool) -> Task:
    """Digits by a residual network whose last layer is small and fixed, so that it must shout.

    Args:
      seed: of data and parameters.
      normalized: whether each block, and the last layer, normalize what they read.
    """
    task = digits(seed)
    keys = jax.random.split(jax.random.key(seed), 6)
    params = {
        "first": jax.random.normal(keys[0], (64, 32)) / 8,
        "blocks": jax.random.normal(keys[1], (4, 32, 32)) / 32**0.5 / 4,
    }
    readout = 1e-4 * jax.random.normal(keys[2], (32, 10))

    def loss(params: Any, batch: Batch) -> jax.Array:
        h = batch["x"] @ params["first"]

        def block(h: jax.Array, item: Any) -> tuple[jax.Array, None]:
            layer, kernel = item
            h = h + jax.nn.relu((normed(h) if normalized else h) @ kernel)
            return gs.tap("residual", h, layer=layer, layers=4), None

        h, _ = jax.lax.scan(block, h, (jnp.arange(4), params["blocks"]))
        return cross_entropy((1e4 * normed(h) if normalized else h) @ readout, batch)

    return Task(params, loss, task.batch)


@case
def growing_residual(seed: int) -> Case:
    """No normalization in front of a last layer that is far too small."""
    task = residual(seed, normalized=False)
    return Case(task, gs.guard(optax.adam(1.5e-3)), steps=_STEPS, taps_every=_EVERY)


@case
def pole_in_the_model(seed: int) -> Case:
    """Gain 1 / (1 - g), which training drives over its pole again after each return.

    The 64 images are always the same and can be told apart, so that a larger gain is always better.
    A second, noisy task keeps loss and gradient away from zero.
    """
    task = digits(seed)
    x, label = images()
    same = {**task.batch(0), "x": x[:64], "label": label[:64]}
    params = {"gain": jnp.zeros(()), "mean": jnp.zeros(8), "network": task.params}

    def batch(step: int) -> Batch:
        return {**same, "noise": np.random.default_rng([seed, step]).standard_normal((8, 8))}

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits = forward(params["network"], batch["x"], jax.nn.relu)
        second = jnp.mean((params["mean"] - batch["noise"]) ** 2)
        return cross_entropy(logits / (1.0 - params["gain"]), batch) + second

    rule = gs.rules.global_norm(1.0)
    tx = gs.rollback(gs.guard(optax.lion(0.02), rule), every=10, patience=6, max_restores=9)
    tx = gs.backoff(tx, rollback_factor=0.3)
    return Case(Task(params, loss, batch), tx, steps=205)
