"""Promises about Flax: its two training loops, and its bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstable._src.testing.compare import require_close, require_same_bits, require_same_types
from gradstable._src.testing.material import gradients, load, step
from gradstable._src.testing.state import require_apart


def check_nnx_optimizer(tx: optax.GradientTransformation, params: Any) -> None:
    """Train a model in ``flax.nnx.Optimizer`` without changes, inside ``nnx.jit``."""
    del params
    nnx = load("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    require_apart(
        params=nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        opt_state=nnx.to_pure_dict(nnx.state(optimizer)),
    )
    inputs = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)

    def loss(model: Any) -> jax.Array:
        return jnp.mean((model(inputs) - 1.0) ** 2)

    @nnx.jit
    def train(model: Any, optimizer: Any, expected: Any, state: Any) -> Any:
        gradients = nnx.grad(loss)(model)
        optimizer.update(model, gradients)
        return step(tx, expected, state, gradients)

    expected = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    state = tx.init(expected)
    for number in range(2):
        expected, state = train(model, optimizer, expected, state)
        when = f"after step {number + 1} of flax.nnx.Optimizer"
        actual = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        require_close(actual, nnx.to_pure_dict(expected), name="params", when=when)


def check_train_state(tx: optax.GradientTransformation, params: Any) -> None:
    """Train in ``flax.training.train_state.TrainState`` without changes."""
    training = load("flax.training.train_state")
    train_state = training.TrainState.create(apply_fn=None, params=params, tx=tx)
    start = train_state

    @jax.jit
    def train(train_state: Any, params: Any, state: Any, updates: Any) -> Any:
        return train_state.apply_gradients(grads=updates), *step(tx, params, state, updates)

    state = tx.init(params)
    for seed in range(2):
        train_state, params, state = train(train_state, params, state, gradients(params, seed))
        when = f"after step {seed + 1} of TrainState"
        require_close(train_state.params, params, name="params", when=when)
        require_same_types(train_state.opt_state, start.opt_state, name="opt_state", when=when)


def check_flax_bytes(tx: optax.GradientTransformation, params: Any) -> None:
    """Have a state that ``flax.serialization`` restores exactly from its bytes."""
    serialization = load("flax.serialization")
    _, state = tx.update(gradients(params), tx.init(params), params)
    data = serialization.to_bytes(state)
    restored = serialization.from_bytes(tx.init(params), data)
    require_same_bits(restored, state, name="state", when="after a round trip through bytes")
