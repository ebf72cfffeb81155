"""A record of decisions, kept in the state: totals per reason, last step, last rejection."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.find import find_all
from gradstable._src.core.numerics import (
    increment,
    looks_for_infinities,
    narrowed,
    unlimited,
    widest,
)
from gradstable._src.core.reasons import NUM_REASONS
from gradstable._src.core.types import Health, Measure, Verdict


class Rejection(NamedTuple):
    """The last rejected step, which stays readable after later good steps."""

    reason: jax.Array  # shape=(), dtype=jnp.int32
    worst_leaf: jax.Array  # shape=(), dtype=jnp.int32
    grad_norm: jax.Array  # shape=(), dtype=jnp.float32, may be inf or nan
    norm_limit: jax.Array  # shape=(), dtype=jnp.float32
    leaf_key: jax.Array  # shape=(), dtype=jnp.int32, number of the path of worst_leaf; 0: unknown


class Ledger(NamedTuple):
    """The record that every judging transform keeps; ``health`` and ``explain`` read it."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    accepted: jax.Array  # shape=(), dtype=jnp.int32
    rejected: jax.Array  # shape=(), dtype=jnp.int32
    clipped: jax.Array  # shape=(), dtype=jnp.int32
    consecutive_rejected: jax.Array  # shape=(), dtype=jnp.int32
    grad_norm: jax.Array  # shape=(), dtype=jnp.float32
    norm_limit: jax.Array  # shape=(), dtype=jnp.float32
    grad_factor: jax.Array  # shape=(), dtype=jnp.float32
    reason: jax.Array  # shape=(), dtype=jnp.int32
    worst_leaf: jax.Array  # shape=(), dtype=jnp.int32
    last_rejected: jax.Array  # shape=(), dtype=jnp.int32
    rejected_by: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    clipped_by: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    last_rejection: Rejection

    @property
    def health(self) -> Health:
        """The same numbers under their public names."""
        return Health(
            count=self.calls,
            accepted=self.accepted,
            rejected=self.rejected,
            clipped=self.clipped,
            consecutive_rejected=self.consecutive_rejected,
            grad_norm=self.grad_norm,
            threshold=self.norm_limit,
            scale=self.grad_factor,
            reason=self.reason,
            worst_leaf=self.worst_leaf,
            last_rejected=self.last_rejected,
        )


class Dropped(NamedTuple):
    """The record of a transform that accumulates micro-batches: those that it left out."""

    by_reason: jax.Array  # shape=(NUM_REASONS,), dtype=jnp.int32
    last_dropped: jax.Array  # shape=(), dtype=jnp.int32, the number of the last one (-1: never)
    consecutive_dropped: jax.Array  # shape=(), dtype=jnp.int32, since the last sound one


def new_dropped() -> Dropped:
    """Return the record of a run in which nothing was left out."""
    return Dropped(
        by_reason=jnp.zeros((NUM_REASONS,), jnp.int32),
        last_dropped=jnp.full((), -1, jnp.int32),
        consecutive_dropped=jnp.zeros((), jnp.int32),
    )


def drop(dropped: Dropped, count: jax.Array, verdict: Verdict, *, counts: jax.Array) -> Dropped:
    """Return the record after a micro-batch with this number and verdict.

    ``counts``: whether it is sound, and not empty.
    """
    here = jnp.arange(NUM_REASONS) == verdict.reason
    return Dropped(
        by_reason=_increment_if(here & ~verdict.accept, dropped.by_reason),
        last_dropped=jnp.where(verdict.accept, dropped.last_dropped, count),
        consecutive_dropped=jnp.where(
            counts, 0, _increment_if(~verdict.accept, dropped.consecutive_dropped)
        ),
    )


def new_ledger(params: Any) -> Ledger:
    """Return the ledger of a run that has not begun. No two leaves share a buffer.

    Its numbers are float64 if a parameter is, else float32.
    """
    dtype = widest(params)

    def integer(value: int = 0) -> jax.Array:
        return jnp.full((), value, jnp.int32)

    def real(value: float) -> jax.Array:
        return jnp.full((), value, dtype)

    rejection = Rejection(
        reason=integer(),
        worst_leaf=integer(-1),
        grad_norm=real(0.0),
        norm_limit=real(unlimited(dtype)),
        leaf_key=integer(),
    )
    return Ledger(
        calls=integer(),
        accepted=integer(),
        rejected=integer(),
        clipped=integer(),
        consecutive_rejected=integer(),
        grad_norm=real(0.0),
        norm_limit=real(unlimited(dtype)),
        grad_factor=real(1.0),
        reason=integer(),
        worst_leaf=integer(-1),
        last_rejected=integer(-1),
        rejected_by=jnp.zeros((NUM_REASONS,), jnp.int32),
        clipped_by=jnp.zeros((NUM_REASONS,), jnp.int32),
        last_rejection=rejection,
    )


def enter(ledger: Ledger, measure: Measure, verdict: Verdict) -> Ledger:
    """Return the ledger with one more step. Counters stop at the largest int32."""
    calls = increment(ledger.calls)
    rejected, clipped = ~verdict.accept, verdict.clipped
    dtype = ledger.grad_norm.dtype
    grad_norm, norm_limit = narrowed(measure.norm, dtype), narrowed(verdict.threshold, dtype)
    this = Rejection(
        reason=verdict.reason,
        worst_leaf=measure.worst_leaf,
        grad_norm=grad_norm,
        norm_limit=norm_limit,
        leaf_key=measure.worst_key,
    )
    here = jnp.arange(NUM_REASONS) == verdict.reason
    return Ledger(
        calls=calls,
        accepted=_increment_if(verdict.accept, ledger.accepted),
        rejected=_increment_if(rejected, ledger.rejected),
        clipped=_increment_if(clipped, ledger.clipped),
        consecutive_rejected=jnp.where(rejected, increment(ledger.consecutive_rejected), 0),
        grad_norm=grad_norm,
        norm_limit=norm_limit,
        grad_factor=verdict.least_scale.astype(dtype),
        reason=verdict.reason,
        worst_leaf=measure.worst_leaf,
        last_rejected=jnp.where(rejected, calls, ledger.last_rejected),
        rejected_by=_increment_if(here & rejected, ledger.rejected_by),
        clipped_by=_increment_if(here & clipped, ledger.clipped_by),
        last_rejection=jax.tree.map(
            lambda new, previous: jnp.where(rejected, new, previous),
            this,
            # A state may be older than the setting that looks for infinities.
            ledger.last_rejection._replace(
                norm_limit=jnp.minimum(ledger.last_rejection.norm_limit, unlimited(dtype))
            )
            if looks_for_infinities()
            else ledger.last_rejection,
        ),
    )


def rejections(opt_state: object) -> jax.Array:
    """Return how many steps all guards in a state have rejected (int32 scalar)."""
    totals = [ledger.rejected for _, ledger in find_all(opt_state, Ledger)]
    return sum(totals, jnp.zeros((), jnp.int32))


def _increment_if(condition: jax.Array, counter: jax.Array) -> jax.Array:
    return jnp.where(condition, increment(counter), counter)
