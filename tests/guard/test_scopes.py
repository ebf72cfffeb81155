"""A profile of a guarded step names the same scopes and source lines as that of a bare one."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.registry import entries, resolve


def _probe() -> optax.GradientTransformation:
    adam = optax.scale_by_adam()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        with jax.named_scope("scope_of_the_optimizer"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


# What is around the guard; anything else is around the optimizer itself.
AROUND = {
    "accumulate",
    "backoff",
    "loss_scale",
    "record",
    "recovery.moment_hygiene",
    "rollback",
    "sharding.average",
}
MORE = {
    "accumulate": {"every": 1},
    "recipes.schedule_free": {"learning_rate": 0.1},
    "sharding.average": {"over": "data"},
}


def _wrappers() -> list[str]:
    named = [entry.name for entry in entries() if entry.cases]
    return [name for name in named if "inner" in inspect.signature(resolve(name)).parameters]


@pytest.mark.parametrize("name", _wrappers())
def test_scopes_and_lines_of_the_optimizer_are_in_the_program(name: str) -> None:
    inner = gs.guard(_probe()) if name in AROUND else _probe()
    tx = resolve(name)(inner, **MORE.get(name, {}))
    params = {"w": jnp.ones((64, 80))}
    update = jax.jit(lambda s, p: tx.update(p, s, p, value=1.0))
    told = update.lower(tx.init(params), params).as_text(debug_info=True)
    assert "scope_of_the_optimizer" in told
    assert inspect.getsourcefile(optax.scale_by_adam) in told
