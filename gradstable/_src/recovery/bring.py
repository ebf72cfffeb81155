"""Carry out what a step does with the copies: take one, put one back, or change their order.

Copies stay where they are. If one is dropped, resumed or forgotten, only their order changes; so at
most one row of the stacks is written in a step, and after that at most one is read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstable._src.core.find import Copy, Snapshots
from gradstable._src.core.select import run_if, select_tree
from gradstable._src.recovery.level import Heights
from gradstable._src.recovery.snapshot import content_of, put, rules_of, state_of
from gradstable._src.recovery.trial import begin
from gradstable._src.recovery.turn import RollbackState, Turn
from gradstable._src.rules.ring import EMPTY

Copies = tuple[Copy, ...]


def arrange(state: RollbackState, turn: Turn, heights: Heights) -> tuple[RollbackState, jax.Array]:
    """Return the state with its copies in the order after this step, and the row for a new one."""
    usual = heights.usual
    level = jnp.where(turn.copies, usual, heights.median)
    copies, slot = _arranged(state.snapshots.copies, turn, state.calls, level)
    trial = begin(heights.lower, copies[0].loss_level, turn.sets_aside)
    # The first copies were taken before there was a loss.
    copies = tuple(
        copy._replace(loss_level=jnp.where(copy.loss_level == EMPTY, usual, copy.loss_level))
        for copy in copies
    )
    new = state._replace(
        trial=select_tree(turn.tries, trial, state.trial, name="trial"),
        restored_to=jnp.where(turn.leaves, copies[0].taken_at, state.restored_to),
        snapshots=state.snapshots._replace(copies=copies),
    )
    return new, slot


def _arranged(
    copies: Copies, turn: Turn, calls: jax.Array, level: jax.Array
) -> tuple[Copies, jax.Array]:
    """Return the copies after a new one, a return, its end, or its undoing; and a row for one."""

    def either(when: jax.Array, new: Copies) -> Copies:
        return select_tree(when, new, copies, name="copies")

    def now() -> Copy:
        return Copy(calls, level, _free(copies))

    copies = either(turn.copies, (now(), *copies[:-1]))
    slot = copies[0].slot
    if len(copies) > 1:
        copies = either(turn.older, (*copies[1:], copies[-1]))
        copies = either(turn.sets_aside, (*copies[:-1], now()))
        slot = jnp.where(turn.copies, slot, copies[-1].slot)
        copies = either(turn.undoes, (copies[-1], *copies[1:]))
        copies = either(turn.forgets, (*copies[:-1], copies[-2]))
    return copies, slot


def _free(copies: Copies) -> jax.Array:
    """Return the first row that none of the copies but the oldest needs."""
    *others, slot = (jnp.full((), row, jnp.int32) for row in range(len(copies)))
    for row in reversed(others):
        needed = jnp.any(jnp.stack([copy.slot == row for copy in copies[:-1]]))
        slot = jnp.where(needed, slot, row)
    return slot


def bring(
    state: RollbackState, turn: Turn, slot: jax.Array, params: Any, dtype: DTypeLike | None
) -> tuple[RollbackState, tuple[Any, ...]]:
    """Return the state and the rule state for the beginning of this step, with its copies."""

    def keep(snapshots: Snapshots) -> Snapshots:
        return put(
            snapshots, slot, content_of(params, state.wrapped_state, state.rule_state, dtype)
        )

    def go(held: Any) -> Any:
        return state_of(snapshots, held[0]), rules_of(snapshots, held[1])

    # One after the other, since a loop in which both change would need room for a copy.
    snapshots = run_if(turn.copies | turn.sets_aside, keep, state.snapshots)
    moving = state.wrapped_state, state.rule_state
    inner_state, rule_state = run_if(turn.leaves | turn.undoes, go, moving)
    return state._replace(wrapped_state=inner_state, snapshots=snapshots), rule_state
