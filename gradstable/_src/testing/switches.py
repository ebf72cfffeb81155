"""The promise about JAX's debug switches: they find nothing wrong with a healthy step."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from gradstable._src.testing.material import gradients, step


def check_debug_switches(tx: optax.GradientTransformation, params: Any) -> None:
    """Make no NaN or infinity in healthy steps, nor anything else JAX's switches look for.

    Once compiled, and once operation by operation, where every intermediate number is checked.
    """
    given = [gradients(params, seed) for seed in range(3)]

    def run(update: Callable[..., tuple[Any, Any]], state: Any) -> None:
        now = params
        for each in given:
            now, state = update(now, state, each)
        jax.block_until_ready((now, state))

    # By context: JAX loses what jax.config.update sets once a context has overridden it.
    with jax.debug_nans(True), jax.debug_infs(True):
        state = tx.init(params)
        with (
            jax.enable_checks(True),
            jax.checking_leaks(),
            jax.debug_key_reuse(True),
            jax.transfer_guard("disallow"),
        ):
            run(jax.jit(lambda *args: step(tx, *args)), state)
        with jax.disable_jit():
            run(lambda *args: step(tx, *args), tx.init(params))
