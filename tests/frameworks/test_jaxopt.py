"""jaxopt: OptaxSolver owns the step, and stops where the gradient is small or no number."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.frameworks.trouble import assert_held, batches, is_finite, protected

jaxopt: Any = pytest.importorskip("jaxopt")

pytestmark = pytest.mark.slow


def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jax.nn.relu(x @ params["hidden"]) @ params["out"] - y) ** 2)


def train(tx: optax.GradientTransformation) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (3, 16)),
        "out": 0.3 * jax.random.normal(keys[1], (16, 1)),
    }
    solver = jaxopt.OptaxSolver(fun=loss_fn, opt=tx)
    state = solver.init_state(params, *batches()[0])
    update = jax.jit(solver.update)
    for x, y in batches():
        params, state = update(params, state, x, y)
    return params, state


def test_it_survives() -> None:
    params, state = train(protected())
    assert is_finite(params)
    assert_held(state.internal_state)


def test_without_the_guard_it_does_not() -> None:
    params, _ = train(optax.adam(1e-2))
    assert not is_finite(params)


def test_run_stops_at_a_gradient_that_is_no_number() -> None:
    # The error is the norm of the gradient, and nan > tol is false: nothing of ours is asked.
    x, y = batches()[120]
    solver = jaxopt.OptaxSolver(fun=loss_fn, opt=protected(), maxiter=50)
    params = {"hidden": jnp.ones((3, 2)), "out": jnp.ones((2, 1))}
    params, state = solver.run(params, x, y)
    assert is_finite(params)
    assert int(gs.health(state.internal_state).count) == 1
