"""What is measured at a step: samples of parameters and moments, and the guard's verdict."""

from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.equations import only_arrays
from gradstable._src.core.find import find_all, present
from gradstable._src.core.layout import splits_of
from gradstable._src.core.ledger import Dropped, Ledger
from gradstable._src.core.names import without_names
from gradstable._src.core.norms import sums_of_squares
from gradstable._src.core.numerics import unknown, unlimited, widen, widest
from gradstable._src.core.sample import sample
from gradstable._src.core.select import own_arrays, run_branch
from gradstable._src.recovery.accumulate import AccumulateState
from gradstable._src.telemetry.state import SecondMoment

# Fields of gradstable and optax states that lower the step size, and the states that have them.
_LOWERING = {
    "step_factor": ("BackoffState", "BackoffOnSpikeState", "GovernState"),
    "scale": ("ReduceOnPlateauState", "ReduceLROnPlateauState"),
}
# Below this, a second moment does not determine the size of a step: the eps of Adam.
_EPS = 1e-8
_TIE = 1.0 - 2.0**-16


class VerdictRow(TypedDict):
    """The columns filled by a guard."""

    threshold: jax.Array
    scale: jax.Array
    reason: jax.Array


def has_guard(opt_state: Any) -> bool:
    """Whether there is a guard or another judging transform that measures the gradient."""
    return bool(find_all(opt_state, Ledger))


def last_verdict(before: Any, opt_state: Any) -> tuple[VerdictRow, jax.Array]:
    """Return the joint verdict of all guards in the state on a gradient.

    Args:
      before: the state of the inner optimizer before the update.
      opt_state: the state after it.

    Returns:
      The verdict, and whether the optimizer made a step or rejected one (bool scalar). While it
      gathers micro-batches it does neither: the verdict is then the one on the last mean, unless
      this micro-batch is left out.
    """
    ledgers = [ledger for _, ledger in find_all(opt_state, Ledger)]
    dtype = widest(ledgers)
    threshold, scale = jnp.full((), unlimited(dtype), dtype), jnp.ones((), dtype)
    reason = jnp.int32(0)
    for ledger in ledgers:
        health = ledger.health
        threshold = jnp.minimum(threshold, health.threshold)
        scale = scale * health.scale
        reason = jnp.where(reason == 0, health.reason, reason)
    steps = zip(_group_steps(before), _group_steps(opt_state), strict=True)
    ended = jnp.all(jnp.stack([jnp.asarray(True), *(new != old for old, new in steps)]))
    dropped = _drop_reason(before, opt_state)
    left_out = ~ended & (dropped > 0)
    reason = jnp.where(left_out | (reason == 0), dropped, reason)
    scale = jnp.where(left_out, 0.0, scale)
    return VerdictRow(threshold=threshold, scale=scale, reason=reason), ended


def _group_steps(opt_state: Any) -> list[jax.Array]:
    """Return how many groups of micro-batches are complete."""
    counters = [state.emitted for _, state in find_all(opt_state, AccumulateState)]
    gathered = find_all(opt_state, optax.MultiStepsState)
    return counters + [jnp.asarray(state.gradient_step) for _, state in gathered]


def _drop_reason(before: Any, opt_state: Any) -> jax.Array:
    """Return why this micro-batch was left out of its group, 0 if it was not."""
    reason = jnp.int32(0)
    pairs = zip(find_all(before, Dropped), find_all(opt_state, Dropped), strict=True)
    for (_, old), (_, new) in pairs:
        moved = new.by_reason != old.by_reason
        reason = jnp.where(jnp.any(moved), jnp.argmax(moved).astype(jnp.int32), reason)
    return reason


def outlying_micro_batch(before: Any, opt_state: Any) -> jax.Array:
    """Return the micro-batch of its group that stands out; -1 if there is none.

    It does so when its group is complete, or when it is left out.
    """
    found = jnp.int32(-1)
    olds, news = (find_all(state, AccumulateState) for state in (before, opt_state))
    for (_, old), (_, new) in zip(olds, news, strict=True):
        of_group = jnp.where(new.position == 0, new.outliers.present.outlier, -1)
        left_out = new.dropped.last_dropped == new.calls
        found = jnp.maximum(found, jnp.where(left_out, old.position, of_group))
    return found


def lr_factor(opt_state: Any) -> jax.Array:
    """Return the factor by which back-off, plateaus and ``govern`` have lowered the step."""
    factor = jnp.float32(1.0)
    for name, states in _LOWERING.items():
        for path, value in optax.tree.get_all_with_path(present(opt_state), name):
            if getattr(path[-1], "tuple_name", None) in states:
                factor = factor * jnp.asarray(value, jnp.float32)
    return factor


def update_ratio(
    previous: Any, params: Any, count: jax.Array, axis_name: AxisName
) -> tuple[jax.Array | None, Any]:
    """Return the norm of the last update over that of the parameters, and a new sample.

    The update is measured in the parameters themselves, one step later, as applied and rounded.
    """
    if params is None:
        return None, previous

    params = only_arrays(params)
    splits = splits_of(params, axis_name)

    def read() -> tuple[jax.Array, Any]:
        sampled = own_arrays(without_names(sample(jax.tree.map(jnp.asarray, params)), params))
        new, old = map(widen, (jax.tree.leaves(sampled), jax.tree.leaves(previous)))
        sizes = zip(jax.tree.leaves(params), new, strict=True)
        weights = jnp.asarray([jnp.size(p) / max(part.size, 1) for p, part in sizes], jnp.float32)
        moved = [one - other for one, other in zip(new, old, strict=True)]
        far, size = (jnp.sum(weights * sums_of_squares(each, splits)) for each in (moved, new))
        ratio = jnp.sqrt(far / size).astype(jnp.float32)
        return ratio, sampled

    def unread() -> tuple[jax.Array, Any]:
        return jnp.float32(unknown()), previous

    # The read branch is always taken. A branch is computed once, before anything that depends on
    # it; otherwise XLA takes the sample a second time for the new state, when the parameters may
    # have been overwritten, and so copies them all: 2 words per parameter, measured.
    return run_branch(jnp.where(count >= 0, 0, 1), (read, unread))


def leaf_rms(
    moment: SecondMoment,
    updates: Any,
    inner_state: Any,
    verdict: VerdictRow,
    axis_name: AxisName,
    *,
    made: jax.Array,
    unscale: ArrayLike | None = None,
) -> tuple[SecondMoment, jax.Array]:
    """Return ``RMS_t`` of each leaf, float32 ``[L]``; NaN where there is no second moment.

    It is also NaN where the optimizer neither ``made`` a step of this gradient nor rejected it.
    """
    leaves = jax.tree.leaves(updates)
    nu = _find_nu(inner_state, updates)
    if nu is None or not leaves:
        return moment, jnp.full((len(leaves),), unknown(), jnp.float32)
    accepted = made & (verdict["scale"] > 0)
    scale = jnp.where(accepted, verdict["scale"], 1.0)
    scale = scale if unscale is None else scale * unscale
    # What the optimizer received. Squares can overflow, and that is then reported.
    g = [jnp.abs(x) * scale for x in widen(jax.tree.leaves(sample(updates)))]
    v = [jnp.abs(x) for x in widen(jax.tree.leaves(sample(nu)))]
    splits = splits_of(updates, axis_name)
    roots = sums_of_squares([jnp.sqrt(x) for x in v], splits)
    moment = _age(moment, sums_of_squares(g, splits), roots, accepted)
    weight = jnp.where(moment.moment_weight > 0, moment.moment_weight, 1.0)
    each = [x / jnp.maximum(jnp.sqrt(y / weight), _EPS) for x, y in zip(g, v, strict=True)]
    entries = [x.size * split.parts for x, split in zip(each, splits, strict=True)]
    sizes = jnp.asarray(entries, jnp.float32)
    roots = jnp.sqrt(sums_of_squares(each, splits) / sizes).astype(jnp.float32)
    return moment, jnp.where(made, roots, unknown())


def worst_rms(rms: jax.Array) -> dict[str, jax.Array | None]:
    """Return the columns of the leaf whose ``RMS_t`` is largest."""
    if not rms.size:
        return {"rms": None, "rms_leaf": jnp.int32(-1)}
    known = rms >= 0
    seen = jnp.where(known, rms, -1.0)
    # The first of those that differ only by rounding: at the first step all are 1.
    worst = jnp.argmax(seen >= jnp.max(seen) * _TIE)
    leaf = jnp.where(jnp.any(known), worst, -1)
    return {"rms": jnp.where(leaf < 0, unknown(), rms[leaf]), "rms_leaf": leaf}


def _age(
    moment: SecondMoment, squares: jax.Array, moments: jax.Array, accepted: jax.Array
) -> SecondMoment:
    """Track the bias of the second moment: ``v`` is ``1 - b2^t`` times ``E g^2``.

    ``b2`` is not known, but the first step reveals it: ``v = (1 - b2) g^2``. In a state that is
    older than its record this comes out as 1, which means no bias.
    """
    ratio = (jnp.sum(moments) / jnp.sum(squares)).astype(jnp.float32)
    usable = accepted & jnp.isfinite(ratio) & (ratio > 0)
    first = jnp.clip(ratio, 0.0, 1.0)
    later = moment.moment_decay * moment.moment_weight + (1.0 - moment.moment_decay)
    unknown = moment.moment_weight == 0
    return SecondMoment(
        moment_weight=jnp.where(
            unknown, jnp.where(usable, first, 0.0), jnp.where(accepted, later, moment.moment_weight)
        ),
        moment_decay=jnp.where(unknown & usable, 1.0 - first, moment.moment_decay),
    )


def _find_nu(inner_state: Any, updates: Any) -> Any | None:
    """Return the one tree ``nu`` like the gradients, ``None`` if there is none or several."""
    shapes = jax.tree.map(jnp.shape, updates)
    found = [
        nu
        for _, nu in optax.tree.get_all_with_path(present(inner_state), "nu")
        if jax.tree.map(np.shape, nu) == shapes
    ]
    return found[0] if len(found) == 1 else None
