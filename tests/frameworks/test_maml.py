"""Meta-learning: the outer gradient goes through the updates of a guarded inner loop."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.frameworks.trouble import is_finite

TASKS, UPDATES, BROKEN_UPDATE = 8, 200, 100


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x[:, None] * params["hidden"] + params["bias"]) @ params["out"]


def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((network(params, x) - y) ** 2)


def adapt(
    inner: optax.GradientTransformationExtraArgs, params: Any, x: jax.Array, y: jax.Array
) -> Any:
    """Take three inner steps on one task."""

    def step(carry: Any, _: None) -> Any:
        params, opt_state = carry
        gradients = jax.grad(loss_fn)(params, x, y)
        updates, opt_state = inner.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, inner.init(params)), None, length=3)[0][0]


def meta_loss(inner: optax.GradientTransformationExtraArgs, params: Any, tasks: Any) -> jax.Array:
    """Return the mean loss of the adapted networks on the second half of each task."""

    def of_task(x: jax.Array, y: jax.Array) -> jax.Array:
        return loss_fn(adapt(inner, params, x[:10], y[:10]), x[10:], y[10:])

    return jnp.mean(jax.vmap(of_task)(*tasks))


def tasks_of(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return points of sines with different phases."""
    x_key, phase_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (TASKS, 20), minval=-3, maxval=3)
    return x, jnp.sin(x + jax.random.uniform(phase_key, (TASKS, 1), maxval=2))


def start() -> Any:
    hidden, out = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(hidden, (16,)),
        "bias": jnp.zeros(16),
        "out": 0.3 * jax.random.normal(out, (16,)),
    }


def train(
    inner: Any, outer: optax.GradientTransformationExtraArgs
) -> tuple[Any, optax.OptState, jax.Array]:
    def update(carry: Any, step: jax.Array) -> Any:
        params, opt_state = carry
        x, y = tasks_of(jax.random.fold_in(jax.random.key(1), step))
        y = y.at[2, 3].set(jnp.where(step == BROKEN_UPDATE, jnp.nan, y[2, 3]))
        loss, gradients = jax.value_and_grad(partial(meta_loss, inner))(params, (x, y))
        updates, opt_state = outer.update(gradients, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), loss

    carry = (start(), outer.init(start()))
    (params, opt_state), losses = jax.lax.scan(update, carry, jnp.arange(UPDATES))
    return params, opt_state, losses


def test_the_outer_guard_leaves_out_a_broken_task() -> None:
    inner = gs.guard(optax.sgd(0.1))
    params, opt_state, losses = jax.jit(lambda: train(inner, gs.protect(optax.adam(1e-2))))()
    assert is_finite(params)
    assert int(gs.health(opt_state).rejected) == 1
    assert int(gs.health(opt_state).last_rejected) == BROKEN_UPDATE + 1
    assert losses[-20:].mean() < 0.5 * losses[:5].mean()


def test_the_inner_guard_alone_does_not() -> None:
    # The adapted parameters stay finite, but the derivative of what was left out is 0 * nan.
    inner = gs.guard(optax.sgd(0.1))
    params, _, losses = jax.jit(lambda: train(inner, optax.adam(1e-2)))()
    assert bool(jnp.isfinite(losses[BROKEN_UPDATE]))
    assert not is_finite(params)


def test_without_a_guard_the_run_is_lost() -> None:
    params, _, _ = jax.jit(lambda: train(optax.sgd(0.1), optax.adam(1e-2)))()
    assert not is_finite(params)


@pytest.mark.parametrize("wrap", [gs.guard, gs.protect])
def test_the_derivative_through_the_guard_is_that_of_the_optimizer(wrap: Any) -> None:
    tasks = tasks_of(jax.random.key(3))
    bare, guarded = (
        jax.jit(jax.grad(partial(meta_loss, inner)))(start(), tasks)
        for inner in (optax.sgd(0.1), wrap(optax.sgd(0.1)))
    )
    for ours, theirs in zip(jax.tree.leaves(guarded), jax.tree.leaves(bare), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
