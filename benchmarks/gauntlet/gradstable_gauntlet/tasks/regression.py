"""Regressions: one with noise of infinite variance, and one on which Adam spikes on its own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import FLOOR, calm, cast, dense, squared_error, stack, weights

_FEATURES, _JUDGED = 4, 256


def heavy_tails(
    *,
    dtype: DTypeLike = jnp.float32,
    index: float = 1.5,
    noise: float = 0.1,
    width: int = 32,
    batch_size: int = 128,
    steps: int = 500,
) -> Task:
    """Return a squared-error regression with noise of infinite variance in the targets.

    Gradients of attention models have heavy tails (Zhang et al. 2020, arXiv:1912.03194): a few
    batches have gradients far larger than all others, although nothing is broken and the mean is
    still right. The noise is symmetric, and the odds that it is above ``x`` fall as ``x**-index``:
    it has a mean for an index above 1, and a variance above 2. The function is a fixed network of
    the same kind. Held-out targets have no noise, but 0.05 is added to the loss.
    """
    teacher = stack(jax.random.key(7), _FEATURES, 16, 1)

    def truth(x: jax.Array) -> jax.Array:
        return jnp.tanh(2 * dense(jnp.tanh(dense(x, teacher[0])), teacher[1]))[:, 0]

    def batch(key: jax.Array) -> Batch:
        x = jax.random.normal(key, (batch_size, _FEATURES))
        odds = jax.random.uniform(jax.random.fold_in(key, 1), (batch_size,), minval=-1.0)
        tail = jnp.maximum(jnp.abs(odds), 1e-7) ** (-1 / index) - 1
        return x, truth(x) + jnp.sign(odds) * tail * noise

    def init(key: jax.Array) -> Params:
        return stack(key, _FEATURES, width, width, 1)

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y = batch
        p, x = cast((params, x * ill.inputs), dtype)
        for layer in p[:-1]:
            x = jax.nn.relu(dense(x, layer))
        return squared_error(dense(x, p[-1])[:, 0], y * ill.targets)

    def held_out(params: Params) -> jax.Array:
        x = jax.random.normal(jax.random.key(99), (_JUDGED, _FEATURES))
        return loss(params, (x, truth(x)), calm()) + FLOOR

    about = f"regression, noise with tails of index {index} in the targets"
    return Task(init, batch, loss, held_out, steps, about)


def sines(
    *, dtype: DTypeLike = jnp.float32, width: int = 128, points: int = 128, steps: int = 400
) -> Task:
    """Return the task of a two-layer network on ``sin x + sin 4x``, with all points in every batch.

    The task on which Bai et al. (2026, arXiv:2506.04805) show that Adam causes spikes on its own:
    where gradients shrink faster than the second moment forgets, the preconditioned curvature
    crosses the stability threshold. Only the initial weights and a fixed noise of variance 0.05 in
    the targets are random. Held-out points lie between the training points.
    """
    x = np.linspace(-np.pi, np.pi, points, endpoint=False, dtype=np.float32)
    between = x + np.float32(np.pi / points)
    noise = np.random.default_rng(0).normal(size=points) * FLOOR**0.5
    every = jnp.asarray(x), jnp.asarray(_waves(x) + noise, jnp.float32)
    held = jnp.asarray(between), jnp.asarray(_waves(between), jnp.float32)

    def init(key: jax.Array) -> Params:
        first, second, bias = weights(key, (1, width), (width, 1), (1, width))
        return {"in": first * 4, "bias": bias[0] * 4, "out": second, "offset": jnp.zeros(1)}

    def batch(key: jax.Array) -> Batch:
        del key
        return every

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y = batch
        p, x = cast((params, x * ill.inputs), dtype)
        hidden = jnp.tanh(x[:, None] * p["in"] + p["bias"])
        return squared_error((hidden @ p["out"] + p["offset"])[:, 0], y * ill.targets)

    def held_out(params: Params) -> jax.Array:
        return loss(params, held, calm()) + FLOOR

    return Task(init, batch, loss, held_out, steps, "two layers on sin x + sin 4x, full batch")


def _waves(x: np.ndarray) -> np.ndarray:
    return np.sin(x) + np.sin(4 * x)
