"""What the tests of rules share: a run over scalars, and norms to run over."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

import gradstable as gs
from gradstable.rules import Rule, all_of


def run(rule: Rule, norms: ArrayLike, values: ArrayLike | None = None) -> tuple[np.ndarray, Any]:
    """Return the scale of each step (0 where rejected) and the last state of the rule.

    The checks that are always on stand around the rule, as they do in ``guard``.
    """
    norms = jnp.asarray(norms, jnp.float32)
    given = norms if values is None else jnp.asarray(values, jnp.float32)
    (state,), scales = _compiled(rule, values is not None)(norms, given)
    return np.asarray(scales), state


@functools.cache
def _compiled(rule: Rule, judges_loss: bool) -> Callable[..., tuple[Any, jax.Array]]:
    judge = all_of(rule)

    def body(state: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        norm, value = step
        context = {"value": value} if judges_loss else {}
        verdict, state = judge.decide(gs.Measure.of(norm), state, **context)
        return state, jnp.where(verdict.accept, verdict.scale, 0.0)

    return jax.jit(lambda norms, values: jax.lax.scan(body, judge.init({}), (norms, values)))


def lognormal(steps: int, sigma: float, seed: int = 0) -> np.ndarray:
    """Return norms around 1 whose logarithms scatter by ``sigma``, exact in float32."""
    drawn = np.exp(np.random.default_rng(seed).normal(0.0, sigma, steps))
    return drawn.astype(np.float32).astype(np.float64)


def stormy() -> np.ndarray:
    """Return 600 norms with a burst, a level shift, a zero, a spike, and a small one."""
    norms = lognormal(600, 0.3, seed=3)
    norms[100:110] *= 30.0
    norms[300:] *= 5.0
    norms[[40, 200, 450]] = [0.0, 1000.0, 1e-3]
    return norms


def share(scales: np.ndarray | Sequence[float], expected: np.ndarray, rtol: float) -> float:
    """Return the share of steps on which two runs agree."""
    return float(np.isclose(scales, expected, rtol=rtol, atol=1e-7).mean())
