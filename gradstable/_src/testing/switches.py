"""The promise about JAX's debug switches: they find no fault in a healthy step."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from gradstable._src.testing.material import gradients, step


def check_debug_switches(tx: optax.GradientTransformation, params: Any) -> None:
    """Be free of NaN and infinity in healthy steps, and of whatever else JAX's switches look for.

    Compiled as a whole, and one operation after the other, where every number between is seen.
    """
    given = [gradients(params, seed) for seed in range(3)]

    def run(update: Callable[..., tuple[Any, Any]], state: Any) -> None:
        now = params
        for each in given:
            now, state = update(now, state, each)
        jax.block_until_ready((now, state))

    # By context: what jax.config.update sets, JAX forgets once it has set it aside for a while.
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
