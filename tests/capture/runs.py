"""A small run with bad batches, and what of it was captured."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstable as gs

PARAMS = {"w": jnp.ones(3), "b": jnp.zeros((), jnp.bfloat16)}
GUARDED = gs.guard(optax.adam(1e-2))
UPDATE = jax.jit(GUARDED.update)
RECORDED = gs.record(GUARDED, capacity=32)


def batch_of(step: int, *, bad: bool = False, scale: float = 1.0) -> dict[str, Any]:
    x = np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)
    x[1, 2] = np.nan if bad else x[1, 2]
    return {"x": scale * x, "id": np.array([step]), "name": f"batch {step}"}


def loss_fn(params: Any, x: Any) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"].astype(jnp.float32) - 1.0) ** 2)


def stepper(tx: Any, **options: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, x: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_fn)(params, x)
        updates, state = tx.update(gradient, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, **options)


STEPS = {"recorded": stepper(RECORDED), "guarded": stepper(GUARDED)}
TXS = {"recorded": RECORDED, "guarded": GUARDED}


def run(
    capture: Any,
    *,
    steps: int,
    bad: tuple[int, ...] = (),
    kind: str = "recorded",
    state: Any = None,
    first: int = 1,
) -> tuple[Any, Any, dict[int, Any]]:
    """Train; return parameters, state, and both before each step."""
    params, state = PARAMS, TXS[kind].init(PARAMS) if state is None else state
    before: dict[int, Any] = {}
    for step in range(first, first + steps):
        batch = batch_of(step, bad=step in bad)
        before[step] = params, state
        params, state = STEPS[kind](params, state, batch["x"])
        capture(state, batch, params=params, rng=jax.random.key(step))
    return params, state, before


def read_all(capture: Any) -> dict[int, gs.Captured]:
    found = [gs.read_capture(folder) for folder in capture.folders]
    return {one.step: one for one in found}
