"""L-BFGS with a line search, which evaluates the loss inside the guarded optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs
from tests.frameworks.trouble import is_finite

STEPS, BROKEN_AT = 60, 8


def train(tx: optax.GradientTransformationExtraArgs) -> Any:
    """Minimize Rosenbrock's function, which is NaN for one step."""

    @jax.jit
    def train_step(params: Any, opt_state: Any, scale: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            x, y = params["xy"]
            return scale * (100 * (y - x**2) ** 2 + (1 - x) ** 2)

        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(
            gradients, opt_state, params, value=loss, grad=gradients, value_fn=loss_fn
        )
        return optax.apply_updates(params, updates), opt_state

    params = {"xy": jnp.array([-1.2, 1.0])}
    opt_state = tx.init(params)
    for step in range(1, STEPS + 1):
        scale = jnp.nan if step == BROKEN_AT else 1.0
        params, opt_state = train_step(params, opt_state, jnp.float32(scale))
    return params, opt_state


def test_it_survives() -> None:
    params, opt_state = train(gs.protect(optax.lbfgs()))
    np.testing.assert_allclose(params["xy"], 1.0, atol=1e-3)
    health = gs.health(opt_state)
    assert (int(health.rejected), int(health.last_rejected)) == (1, BROKEN_AT)
    assert gs.telemetry.read_rows(opt_state).steps[-1]["loss"] < 1e-6


def test_without_the_guard_it_does_not() -> None:
    params, _ = train(optax.lbfgs())
    assert not is_finite(params)
