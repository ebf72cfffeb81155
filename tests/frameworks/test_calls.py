"""How frameworks that are not installed here call a transform, as their sources have it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs

PARAMS = {"w": jnp.ones(3), "frozen": None}
CALM = {"w": jnp.ones(3), "frozen": None}
BROKEN = {"w": jnp.full(3, jnp.nan), "frozen": None}


def loss_as_value(tx: optax.GradientTransformationExtraArgs) -> Any:
    """Return a transform that passes ``loss=`` on as ``value=``."""

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        loss: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        return tx.update(updates, state, params, value=loss, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def levanter(tx: Any, gradients: Any, state: Any) -> Any:
    """levanter/trainer_state.py, take_train_step."""

    def objective(params: Any) -> jax.Array:
        return jnp.sum(params["w"] ** 2)

    return tx.update(
        gradients, state, params=PARAMS, obj_fn=objective, loss=jnp.float32(0.5), grams=None
    )


def maxtext(tx: Any, gradients: Any, state: Any) -> Any:
    """maxtext/trainers/pre_train/train.py with skip_step_on_spikes."""
    norm = gs.global_norm(gradients)
    return tx.update(gradients, state, PARAMS, loss=jnp.float32(0.5), grad_norm=norm)


def brax(tx: Any, gradients: Any, state: Any) -> Any:
    """brax/training/agents/ppo/train.py: without parameters."""
    return tx.update(gradients, state)


@pytest.mark.parametrize("call", [levanter, maxtext, brax])
def test_protect_takes_the_call(call: Any) -> None:
    tx = gs.protect(optax.adam(1e-2))
    state = tx.init(PARAMS)
    step = jax.jit(lambda gradients, state: call(tx, gradients, state))
    for gradients in (CALM, BROKEN, CALM):
        updates, state = step(gradients, state)
        assert bool(jnp.isfinite(updates["w"]).all())
    assert int(gs.health(state).rejected) == 1
    assert "loss" not in gs.telemetry.read_rows(state).steps[-1]  # by that name nobody takes it


@pytest.mark.parametrize("call", [levanter, maxtext])
def test_a_loss_by_another_name_is_passed_on(call: Any) -> None:
    tx = loss_as_value(gs.protect(optax.adam(1e-2), rollback=True))
    state = tx.init(PARAMS)
    step = jax.jit(lambda gradients, state: call(tx, gradients, state))
    for gradients in (CALM, BROKEN, CALM):
        _, state = step(gradients, state)
    assert gs.telemetry.read_rows(state).steps[-1]["loss"] == 0.5


def test_the_learning_rate_is_where_trackers_look_for_it() -> None:
    # Tunix and Levanter log opt_state.hyperparams.
    tx = gs.protect(optax.inject_hyperparams(optax.adam)(learning_rate=1e-2), rollback=True)
    assert tx.init(PARAMS).hyperparams["learning_rate"] == jnp.float32(1e-2)


def test_without_parameters_govern_says_what_is_missing() -> None:
    tx = gs.protect(optax.adam(1e-2), govern=True)
    with pytest.raises(ValueError, match="needs them: call update"):
        brax(tx, CALM, tx.init(PARAMS))


def test_an_optimizer_that_stores_traced_values_elsewhere_cannot_be_inside() -> None:
    # As Levanter's log_norm_passthrough does: the guard traces the optimizer by itself.
    logged: dict[str, jax.Array] = {}

    def log(updates: Any, params: Any) -> Any:
        del params
        logged["norm"] = optax.tree.norm(updates)
        return updates

    tx = gs.guard(optax.chain(optax.stateless(log), optax.sgd(0.1)))

    @jax.jit
    def step(gradients: Any, state: Any) -> Any:
        updates, state = tx.update(gradients, state, PARAMS)
        return updates, state, logged["norm"]

    with pytest.raises(jax.errors.UnexpectedTracerError):
        step(CALM, tx.init(PARAMS))
