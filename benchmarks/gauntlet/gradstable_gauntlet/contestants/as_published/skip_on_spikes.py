"""OLMo's skipped steps, as published in MaxText."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import Tally, new_tally, tell


class SkipOnSpikesState(NamedTuple):
    """State of ``skip_on_spikes``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    losses: jax.Array  # shape=(window,), dtype=jnp.float32
    norms: jax.Array  # shape=(window,), dtype=jnp.float32
    tally: Tally
    inner_state: Any


def skip_on_spikes(
    inner: optax.GradientTransformation, *, window: int = 128, sigmas: float = 6.0
) -> optax.GradientTransformationExtraArgs:
    """Skip a step whose loss or norm is six standard deviations above the mean of the last 128.

    Parameters and inner state do not change in a skipped step, but its loss and norm still enter
    the window. Without ``value=loss``, every step is taken.

    With a NaN, as published: the step is skipped, and the NaN enters the window. Every comparison
    with it is false, so the next 128 steps are skipped as well, until it has left. In the first 62
    steps nothing is skipped, and the NaN reaches the parameters.

    Source:
      MaxText, ``skip_step_on_spikes``, after OLMo-core, ``SkipStepOptimizer``;
      code: github.com/AI-Hypercomputer/maxtext.
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipOnSpikesState:
        empty = jnp.zeros(window)
        count = jnp.zeros((), jnp.int32)
        return SkipOnSpikesState(count, empty, empty, new_tally(), wrapped.init(params))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ) -> tuple[Any, SkipOnSpikesState]:
        new_updates, inner_state = wrapped.update(
            updates, state.inner_state, params, value=value, **extra
        )
        if value is None:
            return new_updates, state._replace(inner_state=inner_state)
        norm = optax.tree.norm(updates)
        usual = _usual(value, state.losses, state.count, sigmas)
        usual &= _usual(norm, state.norms, state.count, sigmas)
        take = usual | (state.count + 1 < max(2, window // 2))
        place = jnp.arange(window) == state.count % window
        return jax.tree.map(
            lambda u: jnp.where(take, u, jnp.zeros_like(u)), new_updates
        ), SkipOnSpikesState(
            count=state.count + 1,
            losses=jnp.where(place, value, state.losses),
            norms=jnp.where(place, norm, state.norms),
            tally=tell(state.tally, ~take),
            inner_state=jax.tree.map(
                lambda new, old: jnp.where(take, new, old), inner_state, state.inner_state
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _usual(newest: jax.Array, past: jax.Array, count: jax.Array, sigmas: float) -> jax.Array:
    held = jnp.minimum(count, past.size)
    there = jnp.arange(past.size) < held
    mean = jnp.sum(jnp.where(there, past, 0.0)) / jnp.maximum(held, 1)
    squares = jnp.sum(jnp.where(there, jnp.square(past - mean), 0.0))
    return newest - mean <= sigmas * jnp.sqrt(squares / jnp.maximum(held - 1, 1))
