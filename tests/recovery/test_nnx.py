"""Loss scaling and the way back through ``flax.nnx.Optimizer``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradstable as gs


class Model(nnx.Module):
    def __init__(self, dtype: Any) -> None:
        self.hidden = nnx.Linear(4, 16, dtype=dtype, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(16, 1, dtype=dtype, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))[:, 0]


def data() -> tuple[jax.Array, jax.Array]:
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.sin(x).sum(axis=1))


def params_of(model: Model) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


def test_float16_from_a_far_too_high_loss_scale() -> None:
    model = Model(jnp.float16)
    tx = gs.loss_scale(gs.guard(optax.adam(1e-2)), init_scale=2.0**24)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Model, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def scaled(model: Model) -> Any:
            loss = jnp.mean((model(x).astype(jnp.float32) - y) ** 2)
            return gs.scale_loss(optimizer, loss), loss

        gradients, loss = nnx.grad(scaled, has_aux=True)(model)
        optimizer.update(model, gradients, value=loss)
        return loss

    losses = []
    for _ in range(60):
        losses.append(float(step(model, optimizer, *data())))
        assert all(np.isfinite(leaf).all() for leaf in params_of(model))
    assert losses[-1] < 0.5 * losses[0]
    assert "The loss scale is" in gs.explain(optimizer)
    assert "without an overflow" not in gs.explain(optimizer)


def test_a_run_goes_back_through_the_optimizer() -> None:
    model = Model(jnp.float32)
    tx = gs.backoff(gs.rollback(gs.guard(optax.adam(1e-3)), every=10, patience=5))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Model, optimizer: Any, x: jax.Array, y: jax.Array) -> None:
        loss, gradients = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, gradients, value=loss)

    x, y = data()
    for _ in range(40):
        step(model, optimizer, x, y)
    # A callback of one's own gone wrong: what no gradient tells of. The guard rejects all that
    # follows, which could be a burst of bad batches, until it has lasted three times the patience.
    nnx.update(model, jax.tree.map(lambda leaf: leaf * 30.0, nnx.state(model, nnx.Param)))
    for _ in range(22):
        step(model, optimizer, x, y)
    (told,) = [line for line in gs.explain(optimizer).splitlines() if "Rolled back" in line]
    assert told.startswith("Rolled back once, at step 56")
    good = [np.asarray(leaf) for leaf in jax.tree.leaves(gs.recovery.last_good(optimizer))]
    # Two or three small steps from it by now.
    for here, there in zip(params_of(model), good, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)
