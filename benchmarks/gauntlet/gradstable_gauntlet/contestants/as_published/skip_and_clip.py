"""AXLearn's skip and clip, as published."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstable_gauntlet.contestants.as_published.common import Tally, new_tally, tell


class SkipAndClipState(NamedTuple):
    """State of ``skip_and_clip``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, steps taken
    mean: jax.Array  # shape=(), dtype=jnp.float32, moving average of the norms of taken steps
    tally: Tally
    inner_state: Any


def skip_and_clip(
    inner: optax.GradientTransformation,
    *,
    multiple: float = 20.0,
    max_norm: float = 1.0,
    decay: float = 0.99,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Skip a step whose norm is 20 times the average of the steps taken; clip the others.

    AXLearn takes several multiples, by default 20, 40 and 100, and skips a step that reaches any of
    them, so its default acts as 20. The average starts at 1, and learns only from steps taken.

    With a NaN, as published: the step is skipped, and parameters, inner state and average stay as
    they were. Skipped norms are never learned: if norms are above 20 from the first step on, all
    steps are skipped forever.

    Source:
      AXLearn, ``skip_and_clip_by_global_norm`` with ``drop_norm_by_grad_norm_ema``;
      code: github.com/apple/axlearn.
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipAndClipState:
        one, count = jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32)
        return SkipAndClipState(count, one, new_tally(), wrapped.init(params))

    def update(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, SkipAndClipState]:
        norm = optax.tree.norm(updates)
        finite = jnp.all(jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(updates)]))
        take = finite & (norm < multiple * state.mean)
        factor = jnp.minimum(1.0, max_norm / (norm + eps))
        clipped = jax.tree.map(lambda g: g * factor, updates)
        new_updates, inner_state = wrapped.update(clipped, state.inner_state, params, **extra)
        taken = state.count.astype(jnp.float32)
        keep = decay * (1.0 - decay**taken) / (1.0 - decay ** (taken + 1.0))
        new = SkipAndClipState(
            count=state.count + 1,
            mean=keep * state.mean + (1.0 - keep) * norm,
            tally=state.tally,
            inner_state=inner_state,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(take, new, old), new, state)
        return jax.tree.map(
            lambda u: jnp.where(take, u, jnp.zeros_like(u)), new_updates
        ), kept._replace(tally=tell(state.tally, ~take | (factor < 1.0)))

    return optax.GradientTransformationExtraArgs(init, update)
