"""ZClip, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import (
    Tally,
    clip_coefficient,
    new_tally,
    python_min,
    tell,
)


class ZClipState(NamedTuple):
    """State of ``zclip``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps
    first: jax.Array  # shape=(warmup,), dtype=jnp.float32, the first norms
    mean: jax.Array  # shape=(), dtype=jnp.float32
    var: jax.Array  # shape=(), dtype=jnp.float32
    tally: Tally


def zclip(
    *,
    decay: float = 0.97,
    z_threshold: float = 2.5,
    max_norm: float | None = 1.0,
    warmup: int = 25,
    eps: float = 1e-6,
) -> optax.GradientTransformation:
    """Clip the global norm if its z-score is high, and to a fixed norm.

    The mode and defaults are those of the authors' class ("zscore", "adaptive_scaling").

    With a NaN, as published: the gradient passes unchanged, and mean and variance are NaN forever.
    From then on no z-score is above any threshold, so only the fixed limit is left, or none if
    ``max_norm`` is ``None``. An infinite norm does not harm the statistics, but the gradient is
    multiplied by 0, which makes its infinite entries NaN.

    Source:
      Kumar, Owen, Roy Chowdhury, Güra, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training",
      2025, arXiv:2504.02507; code: github.com/bluorion-com/ZClip.
    """

    def init(params: Any) -> ZClipState:
        del params
        zero = jnp.zeros((), jnp.float32)
        return ZClipState(jnp.zeros((), jnp.int32), jnp.zeros(warmup), zero, zero, new_tally())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ZClipState]:
        del params
        norm = optax.tree.norm(updates)
        warming = state.count < warmup
        factor, learns = judge(state, norm)
        if max_norm is not None:
            factor = jnp.where(warming, clip_coefficient(norm, max_norm), factor)
        else:
            factor = jnp.where(warming, 1.0, factor)
        clipped = jax.tree.map(lambda g: g * factor, updates)
        learned = jax.tree.map(
            lambda a, b: jnp.where(warming, a, b), watch(state, norm), follow(state, learns)
        )
        return clipped, learned._replace(tally=tell(state.tally, ~(factor >= 1.0)))

    def judge(state: ZClipState, norm: jax.Array) -> tuple[jax.Array, jax.Array]:
        std = jnp.sqrt(state.var)
        z = (norm - state.mean) / (std + eps)
        target = state.mean + z_threshold * std / (z / z_threshold)
        # A comparison with NaN is false, so NaN passes unchanged.
        learns = jnp.where(z > z_threshold, target, norm)
        allowed = learns if max_norm is None else python_min(learns, max_norm)
        return jnp.where(norm > allowed, allowed / (norm + 1e-6), 1.0), learns

    def watch(state: ZClipState, norm: jax.Array) -> ZClipState:
        first = jnp.where(jnp.arange(warmup) == state.count, norm, state.first)
        mean = jnp.mean(first)
        var = jnp.mean(jnp.square(first - mean))
        return state._replace(count=state.count + 1, first=first, mean=mean, var=var)

    def follow(state: ZClipState, norm: jax.Array) -> ZClipState:
        mean = decay * state.mean + (1.0 - decay) * norm
        var = decay * state.var + (1.0 - decay) * jnp.square(norm - mean)
        return state._replace(count=state.count + 1, mean=mean, var=var)

    return optax.GradientTransformation(init, update)
