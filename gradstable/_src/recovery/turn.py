"""What a step does: run the inner optimizer, possibly after a copy, or return to a copy.

| a run is | known by | one step of it | until |
|---|---|---|---|
| training | ``attempts == 0`` | a step of the inner optimizer, maybe after a copy | it diverges |
| rolling back | ``attempts > 0`` | updates toward the newest copy, counted | it has arrived there |
| paused | ``exhausted`` | nothing; ``gs.check`` raises | the end |

A run is exhausted once it has rolled back ``max_restores`` times without a copy in between; then it
rolls back one last time.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.find import Snapshot
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment
from gradstable._src.core.reasons import Reason
from gradstable._src.core.select import run_branch, run_if, select_tree
from gradstable._src.recovery.snapshot import equal, params_of, rules_of, state_of, take
from gradstable._src.recovery.watch import Watch, new_watch


@answers_as_inner
class RollbackState(NamedTuple):
    """State of ``rollback``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    watch: Watch
    restores: jax.Array  # shape=(), dtype=jnp.int32, how often the run rolled back
    in_vain: jax.Array  # shape=(), dtype=jnp.int32, rollbacks since the last copy was taken
    attempts: jax.Array  # shape=(), dtype=jnp.int32, updates of the current rollback; 0: none
    exhausted: jax.Array  # shape=(), dtype=jnp.bool_, paused at the last good parameters
    last_restore: jax.Array  # shape=(), dtype=jnp.int32, the call that rolled back (-1: never)
    restored_to: jax.Array  # shape=(), dtype=jnp.int32, the call before which the copy was taken
    reason: jax.Array  # shape=(), dtype=jnp.int32, why it rolled back
    rule_state: tuple[Any, ...]
    snapshots: tuple[Snapshot, ...]  # the newest first
    wrapped_state: Any


class Turn(NamedTuple):
    """What a step does."""

    runs: jax.Array  # it is a step of the inner optimizer
    copies: jax.Array  # a copy is taken before it
    leaves: jax.Array  # a rollback begins


class Limits(NamedTuple):
    """The numbers of ``rollback``; see its docstring."""

    every: int
    patience: int
    rejections: int
    max_restores: int


def start(
    rule_state: tuple[Any, ...], snapshots: tuple[Snapshot, ...], inner_state: Any
) -> RollbackState:
    """Return the state of a run that has not begun. No two counters share a buffer."""

    def integer(value: int = 0) -> jax.Array:
        return jnp.full((), value, jnp.int32)

    return RollbackState(
        calls=integer(),
        watch=new_watch(),
        restores=integer(),
        in_vain=integer(),
        attempts=integer(),
        exhausted=jnp.zeros((), jnp.bool_),
        last_restore=integer(-1),
        restored_to=integer(-1),
        reason=integer(),
        rule_state=rule_state,
        snapshots=snapshots,
        wrapped_state=inner_state,
    )


def look_back(state: RollbackState, params: Any, axis_name: AxisName) -> RollbackState:
    """Return the state with a rollback ended if it has arrived."""

    def compare() -> jax.Array:
        return equal(params, params_of(state.snapshots[0], params), axis_name)

    going = (state.attempts > 0).astype(jnp.int32)
    arrived = run_branch(going, (lambda: jnp.asarray(True), compare))
    return state._replace(attempts=jnp.where(arrived, 0, state.attempts))


def turn_to(state: RollbackState, limits: Limits, good: jax.Array) -> tuple[RollbackState, Turn]:
    """Decide what this step does, and return the state after that."""
    watch, going = state.watch, state.attempts > 0
    # If the guard has rejected every step since the copy, the parameters are those of the copy:
    # there is nothing to roll back, and the guard accepts a new level on its own. A gradient
    # that is not finite can come from a bad copy, and there is an older one.
    elsewhere = (watch.rejected < watch.age) | (watch.reason == Reason.NONFINITE)
    stuck = (watch.rejected >= limits.rejections) & elsewhere
    wants = (watch.bad >= limits.patience) | stuck
    leaves = wants & ~going & ~state.exhausted
    runs = ~(leaves | going | state.exhausted)
    due = (watch.age >= limits.every) & (watch.good >= limits.patience) & (watch.bad == 0)
    copies = runs & due & good
    in_vain = jnp.where(leaves, increment(state.in_vain), state.in_vain)
    new = state._replace(
        watch=select_tree(leaves, new_watch(), watch, name="watch"),
        restores=jnp.where(leaves, increment(state.restores), state.restores),
        in_vain=jnp.where(copies, 0, in_vain),
        attempts=jnp.where(leaves | going, increment(state.attempts), 0),
        exhausted=state.exhausted | (leaves & (in_vain > limits.max_restores)),
        last_restore=jnp.where(leaves, state.calls, state.last_restore),
        reason=jnp.where(leaves, watch.reason, state.reason),
    )
    new = new._replace(watch=new.watch._replace(age=jnp.where(copies, 0, new.watch.age)))
    return new, Turn(runs, copies, leaves)


def bring(
    state: RollbackState, turn: Turn, params: Any, dtype: DTypeLike | None
) -> tuple[Any, tuple[Any, ...], tuple[Snapshot, ...]]:
    """Return inner state, rule state and copies for the beginning of this step."""
    inner_state, rule_state = state.wrapped_state, state.rule_state

    def copy(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        return take(state.calls, params, inner_state, rule_state, dtype), *snapshots[:-1]

    def go_back(now: Any) -> Any:
        _, _, snapshots = now
        # If the run has already rolled back, the newest copy has been tried.
        older = (*snapshots[1:], snapshots[-1])
        chosen = select_tree(state.in_vain > 1, older, snapshots, name="copies")
        kept = state_of(chosen[0], inner_state), rules_of(chosen[0], rule_state)
        return *kept, chosen

    snapshots = run_if(turn.copies, copy, state.snapshots)
    return run_if(turn.leaves, go_back, (inner_state, rule_state, snapshots))
