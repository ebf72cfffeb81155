"""What a step does: run the inner optimizer, possibly after a copy, or return to a copy.

| a run is | known by | one step of it | until |
|---|---|---|---|
| training | none of the below | a step of the inner optimizer, maybe after a copy | it diverges |
| rolling back | ``attempts > 0`` | updates toward the newest copy, counted | it has arrived there |
| on trial | ``trial.tries_left > 0`` | nothing but hear the loss | three losses were heard |
| paused | ``exhausted`` | nothing; ``gs.check`` raises | the end |

At the return the run itself is put in place of the oldest copy. If the trial fails it becomes the
newest, and the run rolls "back" to it: the return is undone. If not, it is forgotten. With one
copy there is nothing to undo. Without losses, the verdicts of the rules decide.

A run is exhausted once it has rolled back ``max_restores`` times without a copy in between; then it
rolls back one last time.
"""

from collections.abc import Callable
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
from gradstable._src.recovery.level import (
    LOWER,
    Level,
    accept_rise,
    forget_rise,
    is_worse,
    present_level,
    upper_level,
)
from gradstable._src.recovery.snapshot import equal, params_of, rules_of, state_of, take
from gradstable._src.recovery.trial import Trial, begin, failed, hear, no_trial
from gradstable._src.recovery.watch import Watch, new_watch
from gradstable._src.rules.ring import EMPTY

# Each return in vain doubles the evidence that the next one needs, up to this many times.
_MOST_DOUBLINGS = 5
# Losses of rejected batches can be those of bad data: this many must be of batches that were not
# rejected. Or, if all are, the loss is high for this many times the patience: longer than a burst.
_MOVES, _STUCK = 3, 3


@answers_as_inner
class RollbackState(NamedTuple):
    """State of ``rollback``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32
    watch: Watch
    level: Level
    trial: Trial
    doublings: jax.Array  # shape=(), dtype=jnp.int32, of patience, after returns in vain
    restores: jax.Array  # shape=(), dtype=jnp.int32, how often the run rolled back
    undone: jax.Array  # shape=(), dtype=jnp.int32, how many of these did not help
    in_vain: jax.Array  # shape=(), dtype=jnp.int32, rollbacks since the last copy was taken
    attempts: jax.Array  # shape=(), dtype=jnp.int32, updates of the current rollback; 0: none
    exhausted: jax.Array  # shape=(), dtype=jnp.bool_, paused at the last good parameters
    last_restore: jax.Array  # shape=(), dtype=jnp.int32, the call that rolled back (-1: never)
    restored_to: jax.Array  # shape=(), dtype=jnp.int32, the call before which the copy was taken
    last_undone: jax.Array  # shape=(), dtype=jnp.int32, the call that undid it (-1: never)
    reason: jax.Array  # shape=(), dtype=jnp.int32, why it rolled back
    rule_state: tuple[Any, ...]
    snapshots: tuple[Snapshot, ...]  # the newest first
    wrapped_state: Any


class Turn(NamedTuple):
    """What a step does."""

    runs: jax.Array  # it is a step of the inner optimizer
    copies: jax.Array  # a copy is taken before it
    leaves: jax.Array  # a rollback begins
    older: jax.Array  # to the copy before the newest
    undoes: jax.Array  # the run before the rollback is resumed
    forgets: jax.Array  # it is not needed any more
    renews: jax.Array  # the rules start over: the loss is high, but not because of the parameters


class Limits(NamedTuple):
    """The numbers of ``rollback``; see its docstring."""

    every: int
    patience: int
    rejections: int
    max_restores: int


class Seen(NamedTuple):
    """What this step shows."""

    good: jax.Array  # the rules accept it
    finite: jax.Array  # its gradient is
    loss: jax.Array | None  # None: ``value`` was not passed


def start(
    level: Level, rule_state: tuple[Any, ...], snapshots: tuple[Snapshot, ...], inner_state: Any
) -> RollbackState:
    """Return the state of a run that has not begun. No two counters share a buffer."""

    def integer(value: int = 0) -> jax.Array:
        return jnp.full((), value, jnp.int32)

    return RollbackState(
        calls=integer(),
        watch=new_watch(),
        level=level,
        trial=no_trial(),
        doublings=integer(),
        restores=integer(),
        undone=integer(),
        in_vain=integer(),
        attempts=integer(),
        exhausted=jnp.zeros((), jnp.bool_),
        last_restore=integer(-1),
        restored_to=integer(-1),
        last_undone=integer(-1),
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


def turn_to(state: RollbackState, limits: Limits, seen: Seen) -> tuple[RollbackState, Turn]:
    """Decide what this step does, and return the state after that."""
    going = state.attempts > 0
    trying = ~going & (state.trial.tries_left > 0)
    heard = hear(state.trial, seen.loss, seen.good & seen.finite)
    over = trying & (heard.tries_left == 0)
    vain = over & failed(heard)
    undoes = vain & heard.undoable
    leaves = _wants(state, limits, seen) & ~(going | trying | state.exhausted)
    runs = ~(leaves | going | (trying & ~over) | undoes | state.exhausted)
    watch = state.watch
    due = (watch.age >= limits.every) & (watch.good >= limits.patience) & (watch.bad == 0)
    copies = runs & due & seen.good
    in_vain = jnp.where(leaves, increment(state.in_vain), state.in_vain)
    exhausted = state.exhausted | (leaves & (in_vain > limits.max_restores))
    # If the run has rolled back since the last copy, that has been tried. If the copy was taken
    # just before the loss rose, it can be damaged already.
    fresh = watch.age - jnp.maximum(watch.bad, watch.rejected) < limits.patience
    turn = Turn(
        runs=runs,
        copies=copies,
        leaves=leaves,
        older=leaves & ((in_vain > 1) | fresh) & (_older(state).taken_at > 0),
        undoes=undoes,
        forgets=over & ~vain & heard.undoable,
        renews=vain,
    )
    more = jnp.minimum(increment(state.doublings), _MOST_DOUBLINGS)
    fewer = jnp.maximum(state.doublings - copies.astype(jnp.int32), 0)
    new = state._replace(
        watch=select_tree(leaves | vain, new_watch(), watch, name="watch"),
        level=_level_after(state.level, leaves, vain, limits),
        trial=select_tree(trying, heard, state.trial, name="trial"),
        doublings=jnp.where(vain, more, fewer),
        restores=jnp.where(leaves, increment(state.restores), state.restores),
        undone=jnp.where(undoes, increment(state.undone), state.undone),
        in_vain=jnp.where(copies | undoes, 0, in_vain),
        attempts=jnp.where(leaves | going | undoes, increment(state.attempts), 0),
        exhausted=exhausted,
        last_restore=jnp.where(leaves, state.calls, state.last_restore),
        last_undone=jnp.where(undoes, state.calls, state.last_undone),
        reason=jnp.where(leaves, watch.reason, state.reason),
    )
    return new._replace(watch=new.watch._replace(age=jnp.where(copies, 0, new.watch.age))), turn


def _older(state: RollbackState) -> Snapshot:
    return state.snapshots[min(1, len(state.snapshots) - 1)]


def _level_after(level: Level, leaves: jax.Array, vain: jax.Array, limits: Limits) -> Level:
    left = select_tree(leaves, forget_rise(level), level, name="level")
    return select_tree(vain, accept_rise(level, limits.patience), left, name="level")


def _wants(state: RollbackState, limits: Limits, seen: Seen) -> jax.Array:
    """Return whether the run has diverged, by its losses or by rejections in a row."""
    watch = state.watch
    broken = watch.reason == Reason.NONFINITE
    # If the guard has rejected every step since the copy, the parameters are those of the copy:
    # there is nothing to roll back, and the guard accepts a new level on its own. A gradient
    # that is not finite can come from a bad copy, and there is an older one.
    elsewhere = (watch.rejected < watch.age) | broken
    times = 2**state.doublings
    bad = (watch.bad >= limits.patience * times) & (watch.moves >= min(_MOVES, limits.patience))
    stuck = (watch.rejected >= limits.rejections) & elsewhere
    if seen.loss is None:
        return bad | stuck
    sooner = min(limits.rejections, _STUCK * limits.patience)
    bad |= (watch.rejected >= sooner * times) & elsewhere
    # Rules get used to a loss that creeps up. After a return, the level of the copy is enough.
    bad |= (state.in_vain > 0) & (watch.age >= limits.patience * times)
    worse = is_worse(state.level, state.snapshots[0].loss_level, limits.patience)
    worse &= state.snapshots[0].taken_at > 0  # else all that was learned would be lost
    return (bad & worse) | (stuck & broken)


def bring(
    state: RollbackState,
    turn: Turn,
    params: Any,
    patience: int,
    dtype: DTypeLike | None,
    axis_name: AxisName,
) -> tuple[RollbackState, tuple[Any, ...]]:
    """Return the state and the rule state for the beginning of this step, with its copies."""
    # Broken gradients say nothing about the parameters, and need no trial. And there is no way
    # back to a NaN.
    tries = turn.leaves & (state.reason != Reason.NONFINITE) & ~state.exhausted
    undoable = run_branch(
        (tries & (len(state.snapshots) > 1)).astype(jnp.int32),
        (lambda: jnp.asarray(False), lambda: equal(params, params, axis_name)),
    )
    usual = upper_level(state.level, patience)
    median = present_level(state.level, patience)
    lower = present_level(state.level, patience, LOWER)

    def now(level: jax.Array) -> Snapshot:
        return take(state.calls, params, state.wrapped_state, state.rule_state, level, dtype)

    def go(held: Any) -> Any:
        snapshot, *_ = held[2]
        return state_of(snapshot, held[0]), rules_of(snapshot, held[1]), held[2]

    snapshots = _rearranged(
        state.snapshots, turn, undoable, copied=lambda: now(usual), left=lambda: now(median)
    )
    moving = state.wrapped_state, state.rule_state, snapshots
    inner_state, rule_state, snapshots = run_if(turn.leaves | turn.undoes, go, moving)
    trial = begin(lower, snapshots[0].loss_level, undoable)
    # The first copies were taken before there was a loss.
    snapshots = tuple(
        one._replace(loss_level=jnp.where(one.loss_level == EMPTY, usual, one.loss_level))
        for one in snapshots
    )
    new = state._replace(
        wrapped_state=inner_state,
        snapshots=snapshots,
        trial=select_tree(tries, trial, state.trial, name="trial"),
    )
    return new, rule_state


def _rearranged(
    snapshots: tuple[Snapshot, ...],
    turn: Turn,
    undoable: jax.Array,
    *,
    copied: Callable[[], Snapshot],
    left: Callable[[], Snapshot],
) -> tuple[Snapshot, ...]:
    """Return the copies after a new one, a return, its end, or its undoing.

    One thing after the other, since a loop in which copies change places would need room for one.
    """

    def copy(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        return copied(), *snapshots[:-1]

    def drop_newest(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        older = (*snapshots[1:], snapshots[-1])
        return select_tree(turn.older, older, snapshots, name="copies")  # else XLA makes room too

    def set_aside(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        return *snapshots[:-1], left()

    def resume(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        return snapshots[-1], *snapshots[1:]

    def forget(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
        return *snapshots[:-1], snapshots[-2]

    snapshots = run_if(turn.copies, copy, snapshots)
    if len(snapshots) == 1:
        return snapshots
    snapshots = run_if(turn.older, drop_newest, snapshots)
    snapshots = run_if(undoable, set_aside, snapshots)
    snapshots = run_if(turn.undoes, resume, snapshots)
    return run_if(turn.forgets, forget, snapshots)
