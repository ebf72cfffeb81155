"""What is read off a step: from parameters and moments a sample, from the guard its verdict."""

from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstable._core.find import find_all, present
from gradstable._core.layout import AxisName, splits_of
from gradstable._core.ledger import Ledger
from gradstable._core.norms import sums_of_squares
from gradstable._core.numerics import unknown, unlimited, widen, widest
from gradstable._core.select import own_arrays, run_branch
from gradstable.telemetry.sample import sample
from gradstable.telemetry.state import SecondMoment

# States, ours and optax's, whose field ``scale`` lowers the step size.
_LOWERING = (
    "BackoffState",
    "BackoffOnSpikeState",
    "ReduceOnPlateauState",
    "ReduceLROnPlateauState",
)
# Below this a second moment does not set the size of a step: the eps of Adam.
_EPS = 1e-8
_TIE = 1.0 - 2.0**-16


class VerdictRow(TypedDict):
    """The columns that a guard fills."""

    threshold: jax.Array
    scale: jax.Array
    reason: jax.Array


def judged(opt_state: Any) -> bool:
    """Whether there is a guard or another judging transform, which measures the gradient."""
    return bool(find_all(opt_state, Ledger))


def last_verdict(opt_state: Any) -> VerdictRow:
    """Return what was decided of the last step, by all guards in the state together."""
    ledgers = [ledger for _, ledger in find_all(opt_state, Ledger)]
    dtype = widest(ledgers)
    threshold, scale = jnp.full((), unlimited(dtype), dtype), jnp.ones((), dtype)
    reason = jnp.int32(0)
    for ledger in ledgers:
        health = ledger.health
        threshold = jnp.minimum(threshold, health.threshold)
        scale = scale * health.scale
        reason = jnp.where(reason == 0, health.reason, reason)
    return VerdictRow(threshold=threshold, scale=scale, reason=reason)


def lr_factor(opt_state: Any) -> jax.Array:
    """Return the factor by which back-off and plateaus have lowered the step."""
    factor = jnp.float32(1.0)
    for path, value in optax.tree.get_all_with_path(present(opt_state), "scale"):
        if getattr(path[-1], "tuple_name", None) in _LOWERING:
            factor = factor * jnp.asarray(value, jnp.float32)
    return factor


def update_ratio(
    previous: Any, params: Any, count: jax.Array, axis_name: AxisName
) -> tuple[jax.Array | None, Any]:
    """Return how far the last update went, in norms of the parameters, and a new sample.

    It is seen in the parameters themselves, one step later: as it was applied and rounded.
    """
    if params is None:
        return None, previous

    splits = splits_of(params, axis_name)

    def read() -> tuple[jax.Array, Any]:
        sampled = own_arrays(sample(jax.tree.map(jnp.asarray, params)))
        new, old = map(widen, (jax.tree.leaves(sampled), jax.tree.leaves(previous)))
        sizes = zip(jax.tree.leaves(params), new, strict=True)
        weights = jnp.asarray([jnp.size(p) / max(part.size, 1) for p, part in sizes], jnp.float32)
        moved = [one - other for one, other in zip(new, old, strict=True)]
        far, size = (jnp.sum(weights * sums_of_squares(each, splits)) for each in (moved, new))
        ratio = jnp.sqrt(far / size).astype(jnp.float32)
        return ratio, sampled

    def unread() -> tuple[jax.Array, Any]:
        return jnp.float32(unknown()), previous

    # Always read. But what lies in a branch is computed once and before what depends on it, while
    # XLA otherwise takes the sample a second time for the new state, when the parameters may have
    # been overwritten, and so copies them all: 2 words a parameter, measured.
    return run_branch(jnp.where(count >= 0, 0, 1), (read, unread))


def leaf_rms(
    moment: SecondMoment,
    updates: Any,
    inner_state: Any,
    verdict: VerdictRow,
    axis_name: AxisName,
) -> tuple[SecondMoment, jax.Array]:
    """Return ``RMS_t`` of each leaf, float32 ``[L]``; NaN where there is no second moment."""
    leaves = jax.tree.leaves(updates)
    nu = _find_nu(inner_state, updates)
    if nu is None or not leaves:
        return moment, jnp.full((len(leaves),), unknown(), jnp.float32)
    accepted = verdict["scale"] > 0
    scale = jnp.where(accepted, verdict["scale"], 1.0)
    # What the optimizer got. Squares may overflow, which is then what is reported.
    g = [jnp.abs(x) * scale for x in widen(jax.tree.leaves(sample(updates)))]
    v = [jnp.abs(x) for x in widen(jax.tree.leaves(sample(nu)))]
    splits = splits_of(updates, axis_name)
    roots = sums_of_squares([jnp.sqrt(x) for x in v], splits)
    moment = _age(moment, sums_of_squares(g, splits), roots, accepted)
    weight = jnp.where(moment.weight > 0, moment.weight, 1.0)
    each = [x / jnp.maximum(jnp.sqrt(y / weight), _EPS) for x, y in zip(g, v, strict=True)]
    sizes = jnp.asarray([x.size * split.parts for x, split in zip(each, splits, strict=True)])
    return moment, jnp.sqrt(sums_of_squares(each, splits) / sizes).astype(jnp.float32)


def worst_rms(rms: jax.Array) -> dict[str, jax.Array | None]:
    """Return the columns of the leaf whose ``RMS_t`` is largest."""
    if not rms.size:
        return {"rms": None, "rms_leaf": jnp.int32(-1)}
    known = rms >= 0
    seen = jnp.where(known, rms, -1.0)
    # The first of those that differ by rounding alone: at the first step all are 1.
    worst = jnp.argmax(seen >= jnp.max(seen) * _TIE)
    leaf = jnp.where(jnp.any(known), worst, -1)
    return {"rms": jnp.where(leaf < 0, unknown(), rms[leaf]), "rms_leaf": leaf}


def _age(
    moment: SecondMoment, squares: jax.Array, moments: jax.Array, accepted: jax.Array
) -> SecondMoment:
    """Follow the bias of the second moment: ``v`` is short of ``E g^2`` by a factor ``1 - b2^t``.

    ``b2`` is not known, but the first step tells: ``v = (1 - b2) g^2``. In a state that is older
    than its record this comes out as 1, which is as much as to say that there is no bias.
    """
    ratio = (jnp.sum(moments) / jnp.sum(squares)).astype(jnp.float32)
    usable = accepted & jnp.isfinite(ratio) & (ratio > 0)
    first = jnp.clip(ratio, 0.0, 1.0)
    later = moment.b2 * moment.weight + (1.0 - moment.b2)
    unknown = moment.weight == 0
    return SecondMoment(
        weight=jnp.where(
            unknown, jnp.where(usable, first, 0.0), jnp.where(accepted, later, moment.weight)
        ),
        b2=jnp.where(unknown & usable, 1.0 - first, moment.b2),
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
