"""Early warnings: signals that leave their usual range before the loss does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.numerics import SIGMA_PER_MAD, increment, unknown, unlimited
from gradstable._src.rules.streaming import follow
from gradstable._src.telemetry.fields import Alarm

# Steps at which streams are only watched, and the least spread counted as noise: log values that
# scatter by less are not called unusual for scattering a little more.
_WARMUP, _MIN_SPREAD = 20, 0.05
# The usual value has a memory of about 100 steps.
_RATE = 0.01
# A warning requires a multiple of the usual value, and this many standard deviations.
_SIGMAS = 6.0
# Entries needed for a steady mean of squares: for 64 normal ones it scatters by 18 %.
_ENOUGH = 64


class Warned(NamedTuple):
    """One kind of warning: how often it occurred, and its last occurrence."""

    warnings: jax.Array  # shape=(), dtype=jnp.int32
    at_call: jax.Array  # shape=(), dtype=jnp.int32, -1: never
    of_leaf: jax.Array  # shape=(), dtype=jnp.int32, -1: none
    seen_value: jax.Array  # shape=(), dtype=jnp.float32
    usual_value: jax.Array  # shape=(), dtype=jnp.float32


class AlarmState(NamedTuple):
    """The usual range of the logs of ``RMS_t``, one per leaf, and of the update ratio."""

    steps_seen: jax.Array  # shape=(L + 1,), dtype=jnp.int32
    log_center: jax.Array  # shape=(L + 1,), dtype=jnp.float32
    log_spread: jax.Array  # shape=(L + 1,), dtype=jnp.float32, 0: unknown
    rms: Warned
    ratio: Warned


def new_alarms(num_leaves: int) -> AlarmState:
    """Return the state of the alarms before the first step."""

    def never() -> Warned:
        return Warned(
            warnings=jnp.zeros((), jnp.int32),
            at_call=jnp.full((), -1, jnp.int32),
            of_leaf=jnp.full((), -1, jnp.int32),
            seen_value=jnp.full((), unknown(), jnp.float32),
            usual_value=jnp.full((), unknown(), jnp.float32),
        )

    streams = (num_leaves + 1,)
    return AlarmState(
        steps_seen=jnp.zeros(streams, jnp.int32),
        log_center=jnp.zeros(streams, jnp.float32),
        log_spread=jnp.zeros(streams, jnp.float32),
        rms=never(),
        ratio=never(),
    )


def watch(
    state: AlarmState,
    streams: tuple[jax.Array, jax.Array | None],
    *,
    limits: tuple[jax.Array, ...],
    sizes: tuple[int, ...],
    when: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, AlarmState]:
    """Compare this step with the usual values, then learn from it.

    Args:
      state: the usual ranges.
      streams: ``RMS_t`` of each leaf, float32 ``[L]``, and the update ratio, a float32 scalar.
      limits: for each, the multiple of the usual value that triggers a warning.
      sizes: the number of sampled entries of each leaf.
      when: whether the step counts: rejected steps neither warn nor are learned from.
      count: the number of this step.

    Returns:
      The bits of ``Alarm``, int32, and the new state.
    """
    rms, ratio = streams
    values = jnp.concatenate([rms, jnp.full((1,), unknown() if ratio is None else ratio)])
    limit = jnp.concatenate([jnp.full_like(rms, limits[0]), limits[1][None]])
    # A frozen leaf gives zero, which says nothing about its usual size.
    known = when & (values > 0)
    logs = jnp.log(jnp.where(values > 0, values, 1.0))
    excess = logs - state.log_center
    # RMS_t has an absolute scale, on which the published limit applies directly; but the mean over
    # a few entries exceeds it by chance.
    large = jnp.asarray([size >= _ENOUGH for size in sizes] + [False]) & (values > limit)
    unusual = large | (excess > _SIGMAS * SIGMA_PER_MAD * state.log_spread)
    # A step count set from outside does not imply a usual value.
    usually = (state.steps_seen >= _WARMUP) & (state.log_spread > 0)
    raised = known & usually & (excess > jnp.log(limit)) & unusual
    learned = _learn(state, jnp.where(known, logs, 0.0), known & jnp.isfinite(values))
    usual = jnp.exp(state.log_center)
    leaf = (
        jnp.argmax(jnp.where(raised[:-1], excess[:-1], -unlimited())) if rms.size else jnp.array(-1)
    )
    bits = jnp.where(jnp.any(raised[:-1]), Alarm.RMS, 0)
    bits = bits | jnp.where(raised[-1], Alarm.UPDATE_RATIO, 0)
    return bits.astype(jnp.int32), learned._replace(
        rms=_note(state.rms, jnp.any(raised[:-1]), count, leaf, values, usual),
        ratio=_note(state.ratio, raised[-1], count, jnp.array(-1), values, usual),
    )


def _learn(state: AlarmState, logs: jax.Array, known: jax.Array) -> AlarmState:
    first = state.log_spread == 0
    before = jnp.where(first, 0, jnp.maximum(state.steps_seen, 0))
    seen = jnp.where(known, increment(before), before)
    gain = jnp.maximum(_RATE, 1.0 / jnp.maximum(seen, 1).astype(jnp.float32))
    center, spread = follow(state.log_center, state.log_spread, logs - state.log_center, gain)
    center = jnp.where(first, logs, center)
    spread = jnp.maximum(jnp.where(first, 1.0, spread), _MIN_SPREAD)
    return state._replace(
        steps_seen=seen,
        log_center=jnp.where(known, center, state.log_center),
        log_spread=jnp.where(known, spread, state.log_spread),
    )


def _note(
    old: Warned,
    raised: jax.Array,
    count: jax.Array,
    leaf: jax.Array,
    values: jax.Array,
    usual: jax.Array,
) -> Warned:
    new = Warned(
        warnings=increment(old.warnings),
        at_call=count,
        of_leaf=leaf.astype(jnp.int32),
        seen_value=values[leaf],  # -1 is the last stream: the ratio
        usual_value=usual[leaf],
    )
    return jax.tree.map(lambda now, before: jnp.where(raised, now, before), new, old)
