"""AdaGC, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import (
    Tally,
    leaf_norms,
    new_tally,
    python_min,
    scale_leaves,
    tell,
)


class AdaGCState(NamedTuple):
    """State of ``adagc``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    gamma: jax.Array  # shape=(L,), dtype=jnp.float32, inf before the first step
    tally: Tally


def adagc(
    *,
    factor: float = 1.04,
    decay: float = 0.99,
    max_norm: float = 1.0,
    warmup: int = 100,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Clip each leaf to a multiple of the mean of its own clipped norms.

    Defaults are the paper's, which has no ``eps``; this one is from the implementation in
    pytorch-optimizer, and without it a leaf of zeros would become NaN.

    With a NaN, as published: after the warm-up, the mean of the leaf is NaN forever, and so is
    every later gradient of it. During the warm-up, the global norm is NaN, and so are all leaves at
    this step, but their smallest norms stay as they were. A leaf whose gradient is zero once during
    the warm-up has a mean of zero, and never moves again.

    Source:
      Wang et al., "AdaGC: Enhancing LLM Pretraining Stability via Adaptive Gradient Clipping",
      2025, arXiv:2502.11034, algorithm 1.
    """

    def init(params: Any) -> AdaGCState:
        leaves = len(jax.tree.leaves(params))
        return AdaGCState(jnp.zeros((), jnp.int32), jnp.full(leaves, jnp.inf), new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdaGCState]:
        del params
        count, norms = state.count + 1, leaf_norms(updates)
        warming = count < warmup
        whole = jnp.full_like(norms, max_norm) / (optax.tree.norm(updates) + eps)
        own = factor * state.gamma / (norms + eps)
        factors = python_min(jnp.where(warming, whole, own), 1.0)
        clipped = factors * norms
        least = python_min(state.gamma, clipped)
        mean = decay * state.gamma + (1.0 - decay) * clipped
        gamma = jnp.where(warming, least, mean)
        touched = jnp.any(~(factors >= 1.0))
        return scale_leaves(updates, factors), AdaGCState(count, gamma, tell(state.tally, touched))

    return optax.GradientTransformation(init, update)
