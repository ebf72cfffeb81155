"""Fair weather: healthy tasks in which some batches differ from most, and are not to be touched."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstable_gauntlet.task import Batch, Disturbance, Params, Task
from gradstable_gauntlet.tasks.parts import FLOOR, calm, cast, dense, stack, weights

_FEATURES, _TEACHER, _JUDGED = 4, 4, 256


def two_heads(
    *,
    share: float = 0.2,
    factor: float = 10.0,
    dtype: DTypeLike = jnp.float32,
    steps: int = 1500,
) -> Task:
    """Return the task of two heads on a trunk, where one gets few batches with large gradients.

    Every batch belongs to one head, to the second with probability ``share``, and then its loss
    counts ``factor`` times. Who takes such batches for outliers never learns what they teach.
    """
    return several_heads(shares=(1 - share, share), factors=(1.0, factor), dtype=dtype, steps=steps)


def several_heads(
    *,
    shares: Sequence[float],
    factors: Sequence[float],
    dtype: DTypeLike = jnp.float32,
    width: int = 32,
    batch_size: int = 32,
    steps: int = 1500,
) -> Task:
    """Return the regression of several functions, each with its own head on a common trunk.

    Args:
      shares: the part of all batches that belongs to each head.
      factors: by how much the loss of each head is multiplied.
      dtype: the dtype of the model.
      width: the width of the trunk.
      batch_size: the number of samples in a batch.
      steps: the number of steps.

    Returns:
      The task. What counts is the largest error of any head, without its factor, plus 0.05.
    """
    number = len(shares)
    truths = [_teacher(head) for head in range(number)]
    borders = jnp.asarray(np.cumsum(shares)[:-1], jnp.float32)
    scale = jnp.asarray(factors, jnp.float32)

    def init(key: jax.Array) -> Params:
        trunk, heads = stack(key, _FEATURES, width, number, gain=1.0)
        # A leaf for each head, as in a real model: what judges by the leaf can tell them apart.
        columns = jnp.split(heads["kernel"], number, axis=1)
        heads = [{"kernel": column, "bias": jnp.zeros(1)} for column in columns]
        return {"trunk": trunk, "heads": heads}

    def batch(key: jax.Array) -> Batch:
        which = jnp.sum(jax.random.uniform(jax.random.fold_in(key, 1)) >= borders)
        x = jax.random.normal(key, (batch_size, _FEATURES))
        return x, jnp.stack([truth(x) for truth in truths])[which], which

    def outputs(params: Params, x: jax.Array) -> jax.Array:
        p, x = cast((params, x), dtype)
        hidden = jnp.tanh(dense(x, p["trunk"]))
        return jnp.stack([dense(hidden, head)[:, 0] for head in p["heads"]]).astype(jnp.float32)

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y, which = batch
        out = outputs(params, x * ill.inputs)[which]
        return scale[which] * jnp.mean((out - y * ill.targets) ** 2)

    def held_out(params: Params) -> jax.Array:
        x = jax.random.normal(jax.random.key(99), (_JUDGED, _FEATURES))
        right = jnp.stack([truth(x) for truth in truths])
        return jnp.max(jnp.mean((outputs(params, x) - right) ** 2, axis=1)) + FLOOR

    of = ", ".join(f"{100 * s:.0f} % x {f:g}" for s, f in zip(shares, factors, strict=True))
    about = f"{number} heads on a trunk, batches and losses of each: {of}"
    return Task(init, batch, loss, held_out, steps, about)


def sparse_reward(
    *,
    dtype: DTypeLike = jnp.float32,
    share: float = 0.15,
    quiet: float = 1e-4,
    width: int = 32,
    batch_size: int = 16,
    steps: int = 1000,
) -> Task:
    """Return a regression in which few batches tell anything, and all others next to nothing.

    As where a reward is rare: most batches give a gradient about ``quiet`` in size in a random
    direction; a ``share`` of them informs. Next to the usual gradient, all that there is to learn
    looks like a spike.
    """
    truth = _teacher(0)

    def init(key: jax.Array) -> Params:
        return stack(key, _FEATURES, width, 1, gain=1.0)

    def batch(key: jax.Array) -> Batch:
        draws = jax.random.normal(key, (batch_size, _FEATURES + 1))
        x, noise = draws[:, :-1], draws[:, -1]
        tells = jax.random.uniform(jax.random.fold_in(key, 1)) < share
        return x, jnp.where(tells, truth(x), noise), tells

    def output(params: Params, x: jax.Array) -> jax.Array:
        p, x = cast((params, x), dtype)
        return dense(jnp.tanh(dense(x, p[0])), p[1])[:, 0].astype(jnp.float32)

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        x, y, tells = batch
        out, y = output(params, x * ill.inputs), y * ill.targets
        return jnp.mean(jnp.where(tells, (out - y) ** 2, quiet * out * y))

    def held_out(params: Params) -> jax.Array:
        x = jax.random.normal(jax.random.key(99), (_JUDGED, _FEATURES))
        return jnp.mean((output(params, x) - truth(x)) ** 2) + FLOOR

    about = f"regression that {100 * share:.0f} % of the batches inform, others next to nothing"
    return Task(init, batch, loss, held_out, steps, about)


def triplet(
    *,
    dtype: DTypeLike = jnp.float32,
    classes: int = 8,
    noise: float = 0.4,
    width: int = 32,
    batch_size: int = 8,
    steps: int = 600,
) -> Task:
    """Return the task of an embedding in which samples of a class are close, by a triplet loss.

    The loss is a hinge (Schroff et al. 2015, arXiv:1503.03832): ``max(0, d(a, p) - d(a, n) + 1)``
    with squared distances to a sample of the same class and to one of another. Late in training it
    is exactly zero for most batches, and so is the gradient; the rest are all there is to learn
    from. ``targets`` multiplies the hinge.
    """
    (centers,) = weights(jax.random.key(7), (classes, 2 * _FEATURES), gain=float(classes))

    def batch_of(key: jax.Array, size: int) -> Batch:
        one, other, scatter = jax.random.split(key, 3)
        mine = jax.random.randint(one, (size,), 0, classes)
        its = (mine + jax.random.randint(other, (size,), 1, classes)) % classes
        where = jnp.stack([mine, mine, its])
        away = jax.random.normal(scatter, (3, size, 2 * _FEATURES))
        return centers[where] + noise * away

    def init(key: jax.Array) -> Params:
        return stack(key, 2 * _FEATURES, width, 4, gain=1.0)

    def loss(params: Params, batch: Batch, ill: Disturbance) -> jax.Array:
        p, x = cast((params, batch * ill.inputs), dtype)
        anchor, same, other = dense(jax.nn.relu(dense(x, p[0])), p[1]).astype(jnp.float32)
        near = jnp.sum((anchor - same) ** 2, -1)
        far = jnp.sum((anchor - other) ** 2, -1)
        return jnp.mean(jax.nn.relu(near - far + 1.0)) * ill.targets

    def held_out(params: Params) -> jax.Array:
        return loss(params, batch_of(jax.random.key(99), 1024), calm()) + FLOOR

    about = "embedding by a triplet loss, zero for most batches in the end"
    return Task(init, lambda key: batch_of(key, batch_size), loss, held_out, steps, about)


def _teacher(number: int) -> Callable[[jax.Array], jax.Array]:
    """Return a function to learn: a fixed network of the same kind."""
    first, second = stack(jax.random.key(7 + number), _FEATURES, _TEACHER, 1, gain=1.0)
    return lambda x: 1.25 * dense(jnp.tanh(dense(x, first)), second)[:, 0]
