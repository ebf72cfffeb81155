"""A group of micro-batches: the state that is kept, and what each micro-batch adds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.act import is_gradient, scale_updates
from gradstable._src.core.equations import as_arrays
from gradstable._src.core.ledger import Dropped, drop, new_dropped
from gradstable._src.core.names import Unnamed, answers_as_inner, with_names, without_names
from gradstable._src.core.numerics import increment, wide, widest
from gradstable._src.core.parts import Outliers, Parts, no_outliers, no_parts, with_part
from gradstable._src.core.reasons import Reason
from gradstable._src.core.select import compiled_where
from gradstable._src.core.tree_checks import check_weight
from gradstable._src.core.types import Measure, Verdict

_LEAST = 2.0**-126  # the smallest weight that XLA does not treat as 0
_FURTHEST = 2.0**60


@answers_as_inner
class AccumulateState(NamedTuple):
    """State of ``accumulate``."""

    calls: jax.Array  # shape=(), dtype=jnp.int32, micro-batches so far
    position: jax.Array  # shape=(), dtype=jnp.int32, micro-batches of the current group
    kept: jax.Array  # shape=(), dtype=jnp.int32, those of them that count in the mean
    emitted: jax.Array  # shape=(), dtype=jnp.int32, steps of the inner optimizer
    dropped: Dropped
    updated: jax.Array  # shape=(), dtype=jnp.bool_, whether the last call made such a step
    unit: jax.Array  # shape=(), dtype=jnp.float32, the first weight of the group (0: none yet)
    mass: jax.Array  # shape=(), dtype=jnp.float32, the sum of its weights, in units of the first
    gradient_sum: Unnamed  # weighted sum, a tree like the parameters, float32 or wider
    loss_sum: jax.Array  # shape=(), float32 (float64 if a leaf is), weighted sum of the losses
    parts: Parts  # those of the current group
    outliers: Outliers
    rule_state: tuple[Any, ...]
    wrapped_state: Any


def start(params: Any, rule_state: tuple[Any, ...], inner_state: Any) -> AccumulateState:
    """Return the state before the first micro-batch."""
    return AccumulateState(
        calls=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        kept=jnp.zeros((), jnp.int32),
        emitted=jnp.zeros((), jnp.int32),
        dropped=new_dropped(),
        updated=jnp.zeros((), jnp.bool_),
        unit=jnp.zeros((), jnp.float32),
        mass=jnp.zeros((), jnp.float32),
        gradient_sum=without_names(
            jax.tree.map(lambda leaf: jnp.zeros_like(leaf, _sum_dtype(leaf)), as_arrays(params)),
            params,
        ),
        loss_sum=jnp.zeros((), widest(params)),
        parts=no_parts(),
        outliers=no_outliers(),
        rule_state=rule_state,
        wrapped_state=inner_state,
    )


def _sum_dtype(param: jax.Array) -> Any:
    return wide(param.dtype) if is_gradient(param) else jnp.float32


def has_news(state: AccumulateState, *, scaled: bool) -> jax.Array:
    """Return whether a group has anything for the inner transform.

    A loss scale inside must learn of a group in which everything overflowed, or it never falls: in
    that case the mean of nothing is NaN.
    """
    dropped = state.dropped.last_dropped > state.calls - state.position
    return (state.kept > 0) | dropped if scaled else state.kept > 0


def begin_again(state: AccumulateState, full: jax.Array, emit: jax.Array) -> AccumulateState:
    """Return the state for the next group, if this one is full."""
    return state._replace(
        position=jnp.where(full, 0, state.position),
        kept=jnp.where(full, 0, state.kept),
        emitted=jnp.where(emit, increment(state.emitted), state.emitted),
        updated=emit & (state.kept > 0),
        unit=jnp.where(full, 0.0, state.unit),
        mass=jnp.where(full, 0.0, state.mass),
        loss_sum=jnp.where(full, 0.0, state.loss_sum),
        parts=jax.tree.map(lambda new, old: jnp.where(full, new, old), no_parts(), state.parts),
    )


class Share(NamedTuple):
    """The share of a micro-batch in the mean of its group."""

    weight: jax.Array  # shape=(), dtype=jnp.float32, as it was passed; 1 if it is bad or empty
    ratio: jax.Array  # shape=(), dtype=jnp.float32, in units of the first weight of the group
    bad: jax.Array  # shape=(), dtype=jnp.bool_, whether it was negative or not finite
    empty: jax.Array  # shape=(), dtype=jnp.bool_, whether it was 0


def share_of(old: AccumulateState, weight: object) -> Share:
    """Return the share of a micro-batch with this weight; ``None`` is 1."""
    given = jnp.ones((), jnp.float32) if weight is None else check_weight(weight, "accumulate")
    bad = (given < 0) | ~jnp.isfinite(given)
    empty = (given < _LEAST) & ~bad
    sound = jnp.where(bad | empty, 1.0, given)
    unit = jnp.where(old.unit > 0, old.unit, sound)
    ratio = jnp.clip(sound / unit, 1.0 / _FURTHEST, _FURTHEST)
    # Equal weights must give the same bits as none, but XLA can divide by using a reciprocal.
    return Share(sound, jnp.where(sound == unit, 1.0, ratio), bad, empty)


def unless_empty(share: Share, new: Any, old: Any) -> Any:
    """Return the memory of rules: the norm of an all-padding batch is not part of a history."""
    return jax.tree.map(lambda n, o: jnp.where(share.empty, o, n), new, old)


def means(
    state: AccumulateState, like: Any, extra_args: dict[str, Any], *, weighed: bool, of_none: float
) -> tuple[Any, dict[str, Any]]:
    """Return the mean gradient of a group, in the gradient dtypes, and the extra arguments.

    If nothing in the group is sound, means are ``of_none``.
    """
    sound = state.mass > 0
    part = compiled_where(sound, 1.0 / jnp.where(sound, state.mass, 1.0), of_none)
    total = with_names(state.gradient_sum, like)
    mean = jax.tree.map(
        lambda t, g: (t * part).astype(g.dtype) if is_gradient(g) else g, total, like
    )
    loss = state.loss_sum * part.astype(state.loss_sum.dtype)
    given = {} if extra_args.get("value") is None else {"value": loss}
    if weighed:
        given["weight"] = compiled_where(sound, state.mass * state.unit, of_none)
    return mean, {**extra_args, **given}


def judge_rest(verdict: Verdict, loss: jax.Array | None, share: Share) -> Verdict:
    """Return the verdict on the gradient combined with those on the loss and the weight."""
    causes = [(share.bad, Reason.WEIGHT_REJECTED)]
    if loss is not None:
        causes.append((~jnp.isfinite(loss), Reason.LOSS_REJECTED))
    accept, reason = verdict.accept, verdict.reason
    for bad, cause in causes:
        reason = jnp.where(accept & bad, jnp.asarray(cause, jnp.int32), reason)
        accept = accept & ~bad
    # A micro-batch without weight is not judged: the mean over no tokens is NaN.
    return verdict._replace(accept=accept | share.empty, reason=reason)


def gather(
    old: AccumulateState,
    updates: Any,
    measured: Measure,
    verdict: Verdict,
    loss: jax.Array | None,
    share: Share,
) -> AccumulateState:
    """Return the state with one more micro-batch in its sum, or in its count of bad ones."""
    count, counts = increment(old.calls), verdict.accept & ~share.empty

    def add(total: jax.Array, number: jax.Array) -> jax.Array:
        weighted = number.astype(total.dtype) * share.ratio.astype(total.dtype)
        return jnp.where(counts, total + weighted, total)

    scaled = scale_updates(updates, verdict.scale)
    total = jax.tree.map(add, with_names(old.gradient_sum, scaled), scaled)
    return old._replace(
        calls=count,
        position=increment(old.position),
        kept=jnp.where(counts, increment(old.kept), old.kept),
        dropped=drop(old.dropped, count, verdict, counts=counts),
        unit=jnp.where(counts & (old.unit == 0), share.weight, old.unit),
        mass=jnp.where(counts, old.mass + share.ratio, old.mass),
        gradient_sum=without_names(total, updates),
        loss_sum=old.loss_sum if loss is None else add(old.loss_sum, loss),
        parts=with_part(
            old.parts,
            jnp.where(share.empty, 0.0, measured.norm),
            measured.finite | share.empty,
        ),
    )
