"""A healthy step passes while JAX looks for faults: no limit is no infinity, unknown is no NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs


def guarded() -> optax.GradientTransformation:
    return gs.guard(optax.adamw(1e-2))


TRANSFORMS = {
    "guard": guarded,
    "record": lambda: gs.record(guarded()),
    "record(loss_scale)": lambda: gs.record(gs.loss_scale(guarded(), init_scale=1.0)),
    "loss_scale(accumulate)": lambda: gs.loss_scale(gs.accumulate(guarded(), 2), init_scale=1.0),
    "accumulate(loss_scale)": lambda: gs.accumulate(gs.loss_scale(guarded(), init_scale=1.0), 2),
    "rollback(accumulate(kahan))": lambda: gs.rollback(
        gs.accumulate(gs.precision.kahan(guarded()), 2)
    ),
}


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_pitfall_a_limit_that_is_not_there_is_no_infinity(name: str, *, jit: bool) -> None:
    """``init`` raised under ``jax_debug_infs``, and ``record`` under ``jax_debug_nans``."""
    params: Any = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    gradients = jax.tree.map(lambda p: 0.1 * p, params)
    with jax.debug_nans(True), jax.debug_infs(True):
        tx = TRANSFORMS[name]()
        state = tx.init(params)
        update = jax.jit(tx.update) if jit else tx.update
        for _ in range(4):
            updates, state = update(gradients, state, params, value=1.0)
        jax.block_until_ready(updates)
