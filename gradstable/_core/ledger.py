"""What was decided, kept in the state: totals per reason, the last step, the last rejection."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._core.numerics import increment, narrowed, unlimited, widest
from gradstable._core.reasons import NUM_REASONS
from gradstable._core.types import Health, Measure, Verdict


class Rejection(NamedTuple):
    """The last rejected step, which stays readable while good steps follow."""

    reason: jax.Array  # shape=(), dtype=jnp.int32
    worst_leaf: jax.Array  # shape=(), dtype=jnp.int32
    grad_norm: jax.Array  # shape=(), dtype=jnp.float32, may be inf or nan
    threshold: jax.Array  # shape=(), dtype=jnp.float32


class Ledger(NamedTuple):
    """The record that every judging transform keeps; ``health`` and ``explain`` read it."""

    health: Health
    rejected_by: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    clipped_by: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    last_rejection: Rejection


class Dropped(NamedTuple):
    """The record of what gathers micro-batches: those it left out."""

    by_reason: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    last: jax.Array  # shape=(), dtype=jnp.int32, the number of the last one (-1: never)


def new_dropped() -> Dropped:
    """Return the record of a run in which nothing was left out."""
    return Dropped(jnp.zeros((NUM_REASONS,), jnp.int32), jnp.full((), -1, jnp.int32))


def drop(dropped: Dropped, count: jax.Array, verdict: Verdict) -> Dropped:
    """Return the record after a micro-batch with this number and verdict."""
    here = jnp.arange(NUM_REASONS) == verdict.reason
    return Dropped(
        by_reason=_increment_if(here & ~verdict.accept, dropped.by_reason),
        last=jnp.where(verdict.accept, dropped.last, count),
    )


def new_ledger(params: Any) -> Ledger:
    """Return the ledger of a run that has not begun. No two leaves share a buffer.

    Its numbers are float64 where a parameter is, else float32.
    """
    dtype = widest(params)

    def integer(value: int = 0) -> jax.Array:
        return jnp.full((), value, jnp.int32)

    def real(value: float) -> jax.Array:
        return jnp.full((), value, dtype)

    health = Health(
        count=integer(),
        accepted=integer(),
        rejected=integer(),
        clipped=integer(),
        consecutive_rejected=integer(),
        grad_norm=real(0.0),
        threshold=real(unlimited(dtype)),
        scale=real(1.0),
        reason=integer(),
        worst_leaf=integer(-1),
        last_rejected=integer(-1),
    )
    rejection = Rejection(
        reason=integer(),
        worst_leaf=integer(-1),
        grad_norm=real(0.0),
        threshold=real(unlimited(dtype)),
    )
    return Ledger(
        health=health,
        rejected_by=jnp.zeros((NUM_REASONS,), jnp.int32),
        clipped_by=jnp.zeros((NUM_REASONS,), jnp.int32),
        last_rejection=rejection,
    )


def enter(ledger: Ledger, measure: Measure, verdict: Verdict) -> Ledger:
    """Return the ledger with one more step in it. Counters stop at the largest int32."""
    old = ledger.health
    count = increment(old.count)
    rejected, clipped = ~verdict.accept, verdict.clipped
    dtype = old.grad_norm.dtype
    grad_norm, threshold = narrowed(measure.norm, dtype), narrowed(verdict.threshold, dtype)
    health = Health(
        count=count,
        accepted=_increment_if(verdict.accept, old.accepted),
        rejected=_increment_if(rejected, old.rejected),
        clipped=_increment_if(clipped, old.clipped),
        consecutive_rejected=jnp.where(rejected, increment(old.consecutive_rejected), 0),
        grad_norm=grad_norm,
        threshold=threshold,
        scale=verdict.least_scale.astype(dtype),
        reason=verdict.reason,
        worst_leaf=measure.worst_leaf,
        last_rejected=jnp.where(rejected, count, old.last_rejected),
    )
    this = Rejection(
        reason=verdict.reason,
        worst_leaf=measure.worst_leaf,
        grad_norm=grad_norm,
        threshold=threshold,
    )
    here = jnp.arange(NUM_REASONS) == verdict.reason
    return Ledger(
        health=health,
        rejected_by=_increment_if(here & rejected, ledger.rejected_by),
        clipped_by=_increment_if(here & clipped, ledger.clipped_by),
        last_rejection=jax.tree.map(
            lambda new, previous: jnp.where(rejected, new, previous),
            this,
            # A state may be older than the look-out for infinities.
            ledger.last_rejection._replace(
                threshold=jnp.minimum(ledger.last_rejection.threshold, unlimited(dtype))
            )
            if jax.config.jax_debug_infs
            else ledger.last_rejection,
        ),
    )


def _increment_if(condition: jax.Array, counter: jax.Array) -> jax.Array:
    return jnp.where(condition, increment(counter), counter)
