"""Counters that say whether a run has diverged for good; a few bad steps barely move them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.find import find_all
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.numerics import increment
from gradstable._src.core.reasons import Reason
from gradstable._src.core.types import Verdict


class Watch(NamedTuple):
    """Counts of recent steps."""

    bad: jax.Array  # shape=(), dtype=jnp.int32, bad steps minus good ones; never below 0
    rejected: jax.Array  # shape=(), dtype=jnp.int32, steps in a row that were rejected
    good: jax.Array  # shape=(), dtype=jnp.int32, good steps in a row
    age: jax.Array  # shape=(), dtype=jnp.int32, steps since the last copy was taken
    reason: jax.Array  # shape=(), dtype=jnp.int32, why the last step was not good
    moves: jax.Array  # shape=(), dtype=jnp.int32, bad steps not rejected, since ``bad`` was 0


def new_watch() -> Watch:
    """Return the counters of a run that has not begun. No two share a buffer."""
    return Watch(*(jnp.zeros((), jnp.int32) for _ in Watch._fields))


def see(watch: Watch, verdict: Verdict, rejection: jax.Array) -> Watch:
    """Return the counters after one more step.

    Args:
      watch: the counters before it.
      verdict: the verdict of the rules of ``rollback`` on this step.
      rejection: the reason why the step was rejected, 0 if it was not.
    """
    rejected = rejection > 0
    # Broken gradients are counted as rejections; their loss says nothing about the parameters.
    bad = ~verdict.accept & (rejection != Reason.NONFINITE)
    good = verdict.accept & ~rejected
    balance = jnp.where(
        bad, increment(watch.bad), jnp.maximum(watch.bad - good.astype(jnp.int32), 0)
    )
    moves = jnp.where(bad & ~rejected, increment(watch.moves), watch.moves)
    return Watch(
        bad=balance,
        rejected=jnp.where(rejected, increment(watch.rejected), 0),
        good=jnp.where(good, increment(watch.good), 0),
        age=increment(watch.age),
        reason=jnp.where(bad, verdict.reason, jnp.where(rejected, rejection, watch.reason)),
        moves=jnp.where(balance > 0, moves, 0),
    )


def rejection_of(inner_state: object) -> jax.Array | None:
    """Return why the inner guard rejected the last step: 0 if it did not, ``None`` if no guard."""
    ledgers = [ledger for _, ledger in find_all(inner_state, Ledger)]
    if not ledgers:
        return None
    reason = jnp.zeros((), jnp.int32)
    for ledger in ledgers:
        here = jnp.where(ledger.consecutive_rejected > 0, ledger.reason, 0)
        reason = jnp.where(reason > 0, reason, here)
    return reason
