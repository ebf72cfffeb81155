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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.find import Snapshots
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.numerics import increment
from gradstable._src.core.reasons import Reason
from gradstable._src.core.select import run_branch, select, select_tree
from gradstable._src.recovery.level import Heights, Level, accept_rise, forget_rise, is_worse
from gradstable._src.recovery.snapshot import equal, params_of
from gradstable._src.recovery.trial import Trial, failed, hear, no_trial
from gradstable._src.recovery.watch import Watch, new_watch

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
    snapshots: Snapshots
    wrapped_state: Any


class Turn(NamedTuple):
    """What a step does."""

    runs: jax.Array  # it is a step of the inner optimizer
    copies: jax.Array  # a copy is taken before it
    leaves: jax.Array  # a rollback begins
    older: jax.Array  # to the copy before the newest
    tries: jax.Array  # and is on trial
    sets_aside: jax.Array  # meanwhile the run is kept in place of the oldest copy
    exhausts: jax.Array  # it is the last
    goes_on: jax.Array  # a rollback goes on
    listens: jax.Array  # a loss of the trial is heard
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
    heights: Heights


def start(
    level: Level, rule_state: tuple[Any, ...], snapshots: Snapshots, inner_state: Any
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


def compare(
    state: RollbackState, lost: jax.Array, params: Any, axis_name: AxisName
) -> tuple[RollbackState, jax.Array]:
    """End a rollback that has arrived, or find out whether there is a way back to a lost run.

    Parameters are read once for both: a rollback has just begun, so the run cannot be lost again.

    Returns:
      The state, and whether no parameter is a NaN; only known if the run is lost.
    """
    going = state.attempts > 0

    def read() -> jax.Array:
        kept = params_of(state.snapshots, params)
        wanted = jax.tree.map(lambda p, q: select(going, q, p), params, kept)
        return equal(params, wanted, axis_name)

    asks = going | (lost & may_leave(state))
    same = run_branch(asks.astype(jnp.int32), (lambda: jnp.asarray(True), read))
    return state._replace(attempts=jnp.where(same, 0, state.attempts)), same & ~going


def may_leave(state: RollbackState) -> jax.Array:
    """Return whether a rollback can begin: none is under way, on trial, or the last."""
    return ~((state.attempts > 0) | (state.trial.tries_left > 0) | state.exhausted)


def turn_of(
    state: RollbackState, limits: Limits, seen: Seen, *, lost: jax.Array, sound: jax.Array
) -> Turn:
    """Decide what this step does.

    Args:
      state: the state before it.
      limits: those of the rollback.
      seen: what this step shows.
      lost: whether the run has diverged.
      sound: whether no parameter is a NaN, if it has.
    """
    going = state.attempts > 0
    trying = ~going & (state.trial.tries_left > 0)
    heard = _heard(state, seen)
    over = trying & (heard.tries_left == 0)
    vain = over & failed(heard)
    undoes = vain & heard.undoable
    leaves = lost & may_leave(state)
    runs = ~(leaves | going | (trying & ~over) | undoes | state.exhausted)
    watch, copies = state.watch, state.snapshots.copies
    due = (watch.age >= limits.every) & (watch.good >= limits.patience) & (watch.bad == 0)
    in_vain = increment(state.in_vain)
    exhausts = leaves & (in_vain > limits.max_restores)
    # If the run has rolled back since the last copy, that has been tried. If the copy was taken
    # just before the loss rose, it can be damaged already.
    fresh = watch.age - jnp.maximum(watch.bad, watch.rejected) < limits.patience
    # Broken gradients say nothing about the parameters, and need no trial. And there is no way
    # back to a NaN.
    tries = leaves & (watch.reason != Reason.NONFINITE) & ~exhausts
    return Turn(
        runs=runs,
        copies=runs & due & seen.good,
        leaves=leaves,
        older=leaves & ((in_vain > 1) | fresh) & (copies[:2][-1].taken_at > 0),
        tries=tries,
        sets_aside=tries & sound & (len(copies) > 1),
        exhausts=exhausts,
        goes_on=going,
        listens=trying,
        undoes=undoes,
        forgets=over & ~vain & heard.undoable,
        renews=vain,
    )


def turned(state: RollbackState, turn: Turn, seen: Seen) -> RollbackState:
    """Return the state after this has been decided."""
    leaves, vain, undoes, copies = turn.leaves, turn.renews, turn.undoes, turn.copies
    watch = select_tree(leaves | vain, new_watch(), state.watch, name="watch")
    more = jnp.minimum(increment(state.doublings), _MOST_DOUBLINGS)
    fewer = jnp.maximum(state.doublings - copies.astype(jnp.int32), 0)
    in_vain = jnp.where(leaves, increment(state.in_vain), state.in_vain)
    going = leaves | turn.goes_on | undoes
    return state._replace(
        watch=watch._replace(age=jnp.where(copies, 0, watch.age)),
        level=_level_after(state.level, seen.heights, leaves, vain),
        trial=select_tree(turn.listens, _heard(state, seen), state.trial, name="trial"),
        doublings=jnp.where(vain, more, fewer),
        restores=jnp.where(leaves, increment(state.restores), state.restores),
        undone=jnp.where(undoes, increment(state.undone), state.undone),
        in_vain=jnp.where(copies | undoes, 0, in_vain),
        attempts=jnp.where(going, increment(state.attempts), 0),
        exhausted=state.exhausted | turn.exhausts,
        last_restore=jnp.where(leaves, state.calls, state.last_restore),
        last_undone=jnp.where(undoes, state.calls, state.last_undone),
        reason=jnp.where(leaves, state.watch.reason, state.reason),
    )


def _heard(state: RollbackState, seen: Seen) -> Trial:
    return hear(state.trial, seen.loss, seen.good & seen.finite)


def _level_after(level: Level, heights: Heights, leaves: jax.Array, vain: jax.Array) -> Level:
    left = select_tree(leaves, forget_rise(level), level, name="level")
    return select_tree(vain, accept_rise(level, heights), left, name="level")


def diverged(state: RollbackState, limits: Limits, seen: Seen) -> jax.Array:
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
    newest = state.snapshots.copies[0]
    worse = is_worse(state.level, seen.heights, newest.loss_level)
    worse &= newest.taken_at > 0  # else all that was learned would be lost
    return (bad & worse) | (stuck & broken)
