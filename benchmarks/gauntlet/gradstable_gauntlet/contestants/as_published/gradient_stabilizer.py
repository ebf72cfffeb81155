"""GradientStabilizer, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import (
    Tally,
    leaf_norms,
    new_tally,
    scale_leaves,
    tell,
)


class GradientStabilizerState(NamedTuple):
    """State of ``gradient_stabilizer``."""

    mean: jax.Array  # shape=(L,), dtype=jnp.float32, of the norms
    square: jax.Array  # shape=(L,), dtype=jnp.float32, mean of their squares
    tally: Tally


def gradient_stabilizer(*, b1: float = 0.6, b2: float = 0.999) -> optax.GradientTransformation:
    """Keep the direction of each leaf, and give it the mean norm over the root mean square.

    As in algorithm 1, neither mean is corrected for its start at zero: constant gradients of norm 1
    come out with norms of 12.6, 14.3, 14.3, and so on. A leaf of zeros stays as it is, as in the
    authors' code of Stable-SPAM; the paper would divide by zero.

    With a NaN, as published: both means of the leaf are NaN forever, and so is every later gradient
    of it.

    Source:
      Huang et al., "GradientStabilizer: Fix the Norm, Not the Gradient", 2025, arXiv:2502.17055.
    """

    def init(params: Any) -> GradientStabilizerState:
        zeros = jnp.zeros(len(jax.tree.leaves(params)), jnp.float32)
        return GradientStabilizerState(zeros, zeros, new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, GradientStabilizerState]:
        del params
        norms = leaf_norms(updates)
        mean = b1 * state.mean + (1.0 - b1) * norms
        square = b2 * state.square + (1.0 - b2) * jnp.square(norms)
        there = norms > 0
        factors = jnp.where(there, mean / jnp.sqrt(square) / jnp.where(there, norms, 1.0), 1.0)
        tally = tell(state.tally, jnp.any(factors != 1.0))
        return scale_leaves(updates, factors), GradientStabilizerState(mean, square, tally)

    return optax.GradientTransformation(init, update)
