"""How often something happened inside, for the wrappers around it."""

import jax
import jax.numpy as jnp

from gradstable._core.find import find_all
from gradstable._core.ledger import Ledger
from gradstable.recovery.turn import RollbackState


def rejections(inner_state: object) -> jax.Array:
    """Return how many steps all guards inside have rejected (int32 scalar)."""
    totals = [ledger.rejected for _, ledger in find_all(inner_state, Ledger)]
    return sum(totals, jnp.zeros((), jnp.int32))


def returns(inner_state: object) -> jax.Array:
    """Return how often all rollbacks inside have gone back (int32 scalar)."""
    totals = [state.restores for _, state in find_all(inner_state, RollbackState)]
    return sum(totals, jnp.zeros((), jnp.int32))
