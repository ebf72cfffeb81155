"""Run a rule on leaf norms, for the tests of rules that judge leaves by themselves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradstable as gs


def params_of(names: list[str]) -> Any:
    return [{name: {"kernel": jnp.ones(())}} for name in names]


def run(rule: gs.rules.Rule, norms: Any, params: Any = None) -> tuple[np.ndarray, Any]:
    """Return the factors ``[steps, leaves]`` for norms of that shape, and the last state."""
    norms = jnp.asarray(norms, jnp.float32)
    norms = norms[:, None] if norms.ndim == 1 else norms
    params = list(norms[0]) if params is None else params

    def body(state: Any, row: jax.Array) -> tuple[Any, jax.Array]:
        verdict, state = rule.decide(gs.Measure.of(row), state)
        return state, jnp.broadcast_to(verdict.scale, row.shape)

    state, scales = jax.jit(lambda s, n: jax.lax.scan(body, s, n))(rule.init(params), norms)
    return np.asarray(scales), state


def lognormal(steps: int, sigma: float, *, leaves: int = 1, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0.0, sigma, (steps, leaves)))
