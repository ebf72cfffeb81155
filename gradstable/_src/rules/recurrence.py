"""Norms that keep coming back: the appeal against being rejected again and again.

A norm far above the usual one can be a fault, or a healthy minority: a task with larger gradients,
a rare reward, the hard part of a curriculum. At first they look the same. But a minority comes back
to its level, so a level that has been seen before is no reason to reject.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.numerics import increment

# Levels are half a unit of log(norm) wide, and go round: those a factor of e**64 apart are one.
# With wider ones, what was clipped just below the limit would make known what lies above it.
_LEVELS, _WIDTH = 128, 0.5
# A level is remembered for about this many norms.
MEMORY = 1_000
# Faded meetings that make a level known: three in some 800 norms, or one in 500 for good.
_KNOWN = 2.0
# A run of rejections at one level is let in when it is longer than this plus a part of all norms
# accepted so far. With a short history, it is the history that is more likely to be wrong.
_RUN, _PART_OF_HISTORY = 5, 0.25
# The size at which recurring norms are let in, in medians, grows by 1 with this many of them, up to
# a limit.
_VISITS_PER_MEDIAN, _MAX_MEDIANS = 32.0, 3.0
# A level this far above the usual one, in log(norm), is not usual now.
_FAR = 1.0


class Recurrence(NamedTuple):
    """Which levels of the norm have been met, and how the current run of rejections looks."""

    let_in: jax.Array  # shape=(), dtype=jnp.float32, recurring norms that were let in, fading
    passed: jax.Array  # shape=(), dtype=jnp.int32, norms that were not rejected
    run_length: jax.Array  # shape=(), dtype=jnp.int32, rejections in a row
    run_log: jax.Array  # shape=(), dtype=jnp.float32, log of the last rejected norm
    level_visits: jax.Array  # shape=(128,), dtype=jnp.float32, norms met at each level, fading


def new_recurrence() -> Recurrence:
    """Return the memory of a run that has not begun. No two leaves share a buffer."""
    return Recurrence(
        let_in=jnp.zeros((), jnp.float32),
        passed=jnp.zeros((), jnp.int32),
        run_length=jnp.zeros((), jnp.int32),
        run_log=jnp.zeros((), jnp.float32),
        level_visits=jnp.zeros((_LEVELS,), jnp.float32),
    )


def appeal(
    state: Recurrence, log_norm: jax.Array, rejected: jax.Array
) -> tuple[jax.Array, jax.Array, Recurrence]:
    """Return whether to let a rejected norm in, at how many medians, and the new memory.

    A norm is let in if its level is known: it, or one of its neighbors, was met three times within
    the last thousand norms. A run of rejections counts as one meeting, so a single burst of faults
    makes no level known. Or if the run is long compared with the whole history, at one level; then
    the level is known from there on.

    Args:
      state: the memory.
      log_norm: log of the norm; it must be finite.
      rejected: whether the rule would reject it.
    """
    # Counts may have been set from outside.
    passed, run = (jnp.maximum(count, 0) for count in (state.passed, state.run_length))
    level = jnp.floor(log_norm / _WIDTH)
    half = _LEVELS // 2
    distance = jnp.abs((jnp.arange(_LEVELS, dtype=level.dtype) - level + half) % _LEVELS - half)
    visits = jnp.sum(jnp.where(distance <= 1, state.level_visits, 0.0))
    in_run = state.run_length > 0
    before = visits - jnp.where(in_run, 1.0, 0.0)  # the run has counted itself
    run = jnp.where(jnp.abs(log_norm - state.run_log) < 1.0, run, 0) + 1
    longest = _RUN + _PART_OF_HISTORY * passed.astype(level.dtype)
    long = run.astype(level.dtype) > longest
    admit = rejected & ((before >= _KNOWN) | long)
    held = rejected & ~admit
    met = jnp.where(admit & long, _KNOWN + 1.0, jnp.where(held & in_run, 0.0, 1.0))
    fade = 1.0 - 1.0 / MEMORY
    return (
        admit,
        jnp.clip(1.0 + state.let_in / _VISITS_PER_MEDIAN, 1.0, _MAX_MEDIANS),
        Recurrence(
            let_in=fade * state.let_in + jnp.where(admit, 1.0, 0.0),
            passed=jnp.where(held, passed, increment(passed)),
            run_length=jnp.where(held, run, 0),
            run_log=jnp.where(rejected, log_norm, state.run_log),
            level_visits=fade * state.level_visits + jnp.where(distance == 0, met, 0.0),
        ),
    )


def share_let_in(state: Any, log_center: Any) -> Any:
    """Return the share of recent norms that come back, from fetched numbers of any members.

    Where the usual norm has risen for good, those let in until then are not above it anymore.

    Args:
      state: the memory.
      log_center: log of the usual norm now.
    """
    visits = np.asarray(state.level_visits)
    above = (np.arange(_LEVELS) + 0.5) * _WIDTH - np.asarray(log_center)[..., np.newaxis]
    period = _LEVELS * _WIDTH
    far = (above + period / 2) % period - period / 2 > _FAR
    total = np.maximum(np.sum(visits, axis=-1), 1.0)
    return np.minimum(np.asarray(state.let_in), np.sum(visits * far, axis=-1)) / total
