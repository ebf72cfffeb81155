"""What a user brings: an optimizer, a task and a storm of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradstable_gauntlet import Storm, Task, calm


def signed(learning_rate):
    """Sign descent, clipped."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sign_sgd(learning_rate))


def line(dtype=jnp.float32):
    """Three weights of a line with noise."""
    true = jnp.array([1.0, -2.0, 0.5])

    def batch(key):
        x = jax.random.normal(key, (16, 3))
        return x, x @ true + 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (16,))

    def loss(params, batch, wrong):
        x, y = batch
        error = (x * wrong.inputs).astype(dtype) @ params.astype(dtype) - y * wrong.targets
        return jnp.mean(error.astype(jnp.float32) ** 2)

    def held_out(params):
        return jnp.sum((params - true) ** 2) + 0.09

    return Task(lambda key: 0.1 * jax.random.normal(key, (3,)), batch, loss, held_out, 60, "a line")


CONTESTANTS = {"signed": signed}
TASKS = {"line": line}
STORMS = {
    "all labels x 2": Storm(
        lambda steps, _: calm(steps)._replace(targets=np.full(steps, 2.0, np.float32)),
        "labels",
        "every target is doubled",
    )
}
