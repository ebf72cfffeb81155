"""Optimistix: a solver stops when nothing changes, and in a rejected step nothing does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

optx: Any = pytest.importorskip("optimistix")

pytestmark = pytest.mark.slow

# Its steps are eight times too long: the bare optimizer leaps to and fro, ever farther.
OPTIMIZER = optax.sgd(8.0)


def solve(tx: optax.GradientTransformation) -> Any:
    def barrier(y: jax.Array, args: object) -> jax.Array:  # is least at 2
        return jnp.sum(y - 2 * jnp.log(y))

    solver = optx.OptaxMinimiser(tx, rtol=1e-6, atol=1e-6)
    return optx.minimise(barrier, solver, jnp.array([0.3, 1.0]), max_steps=500, throw=False)


def is_solved(solution: Any) -> bool:
    return bool(solution.result == optx.RESULTS.successful)


def test_without_the_guard_it_diverges() -> None:
    solution = solve(OPTIMIZER)
    assert not is_solved(solution)
    assert float(jnp.max(solution.value)) > 100


def test_a_rejected_step_looks_like_convergence() -> None:
    solution = solve(gs.guard(OPTIMIZER))
    assert is_solved(solution)
    assert float(jnp.max(jnp.abs(solution.value - 2))) > 1  # far from it
    assert int(gs.health(solution.state.opt_state).consecutive_rejected) == 2  # and says so


def test_a_rule_that_only_clips_and_a_governed_rate_arrive() -> None:
    solution = solve(gs.protect(OPTIMIZER, rules=[gs.rules.global_norm(10.0)], govern=True))
    np.testing.assert_allclose(solution.value, 2.0, atol=0.05)
    assert int(gs.health(solution.state.opt_state).rejected) == 0


def test_the_loss_reaches_the_transform() -> None:
    solution = solve(gs.protect(optax.sgd(0.1)))
    assert is_solved(solution)
    loss = gs.telemetry.read_rows(solution.state.opt_state).steps[-1]["loss"]
    np.testing.assert_allclose(loss, 2 * (2 - 2 * np.log(2)), rtol=1e-3)
