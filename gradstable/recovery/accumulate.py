"""Gradient accumulation that a bad micro-batch cannot poison."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradstable._core.act import keep_finite, scale_updates, unmoved
from gradstable._core.checks import (
    check_size,
    check_state,
    check_transform,
    check_updates,
    check_value,
)
from gradstable._core.layout import AxisName, agreed, check_axis_name
from gradstable._core.ledger import Dropped, drop, new_dropped
from gradstable._core.numerics import increment, wide
from gradstable._core.reasons import Reason
from gradstable._core.scale import UNSCALE, unscale_factors, unscale_measure
from gradstable._core.select import own_arrays, run_branch, take_types
from gradstable._core.shown import shown
from gradstable._core.types import Verdict
from gradstable._core.unit_norms import local_scale, measure_for
from gradstable.rules import Rule, all_of
from gradstable.rules.protocol import check_rules


class AccumulateState(NamedTuple):
    """State of ``accumulate``."""

    count: jax.Array  # shape=(), dtype=jnp.int32, micro-batches so far
    position: jax.Array  # shape=(), dtype=jnp.int32, those of the group that is being gathered
    kept: jax.Array  # shape=(), dtype=jnp.int32, those of them that were sound
    emitted: jax.Array  # shape=(), dtype=jnp.int32, steps of the inner optimizer
    dropped: Dropped
    total: Any  # like the parameters, in float32 or wider: the sum of the sound gradients
    value: jax.Array  # shape=(), dtype=jnp.float32, the sum of their losses
    rule_state: tuple[Any, ...]
    inner_state: Any


@shown
def accumulate(
    inner: optax.GradientTransformation,
    every: int | Callable[[jax.Array], ArrayLike],
    *,
    rules: Sequence[Rule] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gather the gradients of several micro-batches, leave bad ones out, and step by their mean.

    Use it in place of ``optax.MultiSteps`` when a batch does not fit into memory, around the
    guard: ``gs.accumulate(gs.guard(optax.adamw(3e-4)), 8)``. With ``A`` the micro-batches of a
    group of ``k`` that are sound, at the last one the inner optimizer gets

    .. math:: \bar g = \frac{1}{|A|} \sum_{i \in A} g_i

    and before it, and where ``A`` is empty, the updates are zero and its state stays bit-identical.
    Bad is a micro-batch whose gradient has an entry that is not finite, or a norm above ``2**60``,
    one whose ``value`` is not finite, and what a rule rejects. Bad gradients are left out by
    selection, so that nothing of them remains.

    It is built anew: ``optax.MultiSteps`` resets its mean by a product, so that one NaN stays in it
    for ever; around a guard, which then rejects each mean, the run stands still. And it runs the
    inner optimizer in every call, to throw away all results but one.

    Known weakness: with few of a group left, the mean is as noisy as that of a small batch, and
    the step is as long as ever. Put a rule into the guard if that matters.

    Args:
      inner: any optax transform; its schedules count steps, not micro-batches.
      every: ``k``, micro-batches in a group, >= 1, or a function from the number of steps made so
        far to it, as for ``optax.MultiSteps``.
      rules: what judges a single micro-batch, besides the check for finite numbers: rejected ones
        are left out, others scaled by the verdict. Default: none; the guard inside judges the mean.
      axis_name: mesh axes over which the leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with an ``AccumulateState``; updates are those of
      ``inner``. ``state.position == 0`` after a call that ended a group. If ``value`` is passed,
      ``inner`` gets the mean of the sound ones; other extra arguments are those of the last call.

    Raises:
      TypeError: if ``inner`` is no transform, or a rule no ``Rule``.
      ValueError: if ``every`` is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.accumulate(optax.sgd(1.0), 3)
      >>> state = tx.init(jnp.zeros(2))
      >>> for g in ([1.0, 2.0], [jnp.nan, 0.0], [3.0, 4.0]):
      ...     u, state = tx.update(jnp.array(g), state)
      >>> u.tolist()
      [-2.0, -3.0]

    Source:
      Ours; ``optax.MultiSteps`` for the interface.
    """
    inner = check_transform("inner", inner)
    if not callable(every):
        check_size("every", every, at_least=1)
    check_rules(rules)
    check_axis_name(axis_name)
    judge = all_of(tuple(rules))

    def init_fn(params: optax.Params) -> AccumulateState:
        return _start(params, judge.init(params), own_arrays(inner.init(params)))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        unscale: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        old = check_state(state, AccumulateState, "accumulate")
        check_updates(updates, params)
        extra_args = agreed(extra_args, axis_name)
        measured = measure_for(judge.needs, updates, params, axis_name=axis_name)
        measured = unscale_measure(measured, unscale)
        verdict, rule_state = judge.decide(measured, old.rule_state, params=params, **extra_args)
        scale = local_scale(verdict.scale, updates, axis_name=axis_name)
        verdict = verdict._replace(scale=unscale_factors(scale, unscale))
        value = extra_args.get("value")
        loss = None if value is None else check_value(value, "accumulate")
        new = _gather(old, updates, _judge_loss(verdict, loss), loss)
        full = new.position >= (every(old.emitted) if callable(every) else every)
        emit = full & (new.kept > 0)

        # The sum is handed back by the condition too: selected outside, XLA would copy all states.
        def step() -> tuple[Any, Any, Any]:
            share = 1.0 / jnp.maximum(new.kept, 1).astype(jnp.float32)
            mean = jax.tree.map(lambda t, g: (t * share).astype(g.dtype), new.total, updates)
            given = extra_args if loss is None else {**extra_args, "value": new.value * share}
            stepped, inner_state = inner.update(mean, old.inner_state, params, **given)
            inner_state = take_types(inner_state, old.inner_state, name="state")
            none = jax.tree.map(jnp.zeros_like, new.total)
            return keep_finite(jnp.asarray(True), stepped, params), inner_state, none

        def wait() -> tuple[Any, Any, Any]:
            stepped = jax.eval_shape(step)[0]
            still = jax.tree.map(lambda like, g: unmoved(g).astype(like.dtype), stepped, updates)
            return still, old.inner_state, new.total

        new_updates, inner_state, total = run_branch(emit.astype(jnp.int32), (wait, step))
        new = _begin_anew(new._replace(total=total), full, emit)
        return new_updates, new._replace(rule_state=rule_state, inner_state=inner_state)

    setattr(update_fn, UNSCALE, True)
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _start(params: Any, rule_state: tuple[Any, ...], inner_state: Any) -> AccumulateState:
    return AccumulateState(
        count=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        kept=jnp.zeros((), jnp.int32),
        emitted=jnp.zeros((), jnp.int32),
        dropped=new_dropped(),
        total=jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide(leaf.dtype)), params),
        value=jnp.zeros((), jnp.float32),
        rule_state=rule_state,
        inner_state=inner_state,
    )


def _begin_anew(state: AccumulateState, full: jax.Array, emit: jax.Array) -> AccumulateState:
    return state._replace(
        position=jnp.where(full, 0, state.position),
        kept=jnp.where(full, 0, state.kept),
        emitted=jnp.where(emit, increment(state.emitted), state.emitted),
        value=jnp.where(full, 0.0, state.value),
    )


def _judge_loss(verdict: Verdict, loss: jax.Array | None) -> Verdict:
    if loss is None:
        return verdict
    sound = jnp.isfinite(loss)
    lost = jnp.asarray(Reason.LOSS_REJECTED, jnp.int32)
    return verdict._replace(
        accept=verdict.accept & sound,
        reason=jnp.where(verdict.accept & ~sound, lost, verdict.reason),
    )


def _gather(
    old: AccumulateState, updates: Any, verdict: Verdict, loss: jax.Array | None
) -> AccumulateState:
    """Return the state with one more micro-batch in its sum, or in its count of bad ones."""
    accept, count = verdict.accept, increment(old.count)

    def add(total: jax.Array, update: jax.Array) -> jax.Array:
        return jnp.where(accept, total + update.astype(total.dtype), total)

    return old._replace(
        count=count,
        position=increment(old.position),
        kept=jnp.where(accept, increment(old.kept), old.kept),
        dropped=drop(old.dropped, count, verdict),
        total=jax.tree.map(add, old.total, scale_updates(updates, verdict.scale)),
        value=old.value if loss is None else jnp.where(accept, old.value + loss, old.value),
    )
