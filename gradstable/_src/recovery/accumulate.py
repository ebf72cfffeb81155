"""Gradient accumulation that a bad micro-batch cannot poison."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from gradstable._src.core.act import keep_finite, unmoved
from gradstable._src.core.agreed import agreed, mean_over
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.checks import check_size
from gradstable._src.core.equations import as_arrays, is_array, only_arrays
from gradstable._src.core.ledger import rejections
from gradstable._src.core.order import inside
from gradstable._src.core.parts import keep, outlier_of
from gradstable._src.core.reach import Reach
from gradstable._src.core.scale import ScaleAwareTransformation, unscale_factors, unscale_measure
from gradstable._src.core.select import own_arrays, run_branch, take_types
from gradstable._src.core.shown import shown
from gradstable._src.core.taken import check_taken, takes
from gradstable._src.core.tree_checks import check_state, check_value
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.unit_norms import local_scale, measure_for
from gradstable._src.core.wrapped import explaining
from gradstable._src.precision.inside import has_loss_scale, unscale_inside
from gradstable._src.recovery.group import (
    AccumulateState,
    begin_again,
    gather,
    has_news,
    judge_rest,
    means,
    share_of,
    start,
    unless_empty,
)
from gradstable._src.rules.protocol import Rule, all_of, check_rules

_OWN = ("weight", "value", "unscale")


@shown
def accumulate(
    inner: optax.GradientTransformation,
    every: int | Callable[[jax.Array], ArrayLike],
    *,
    rules: Sequence[Rule] = (),
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Accumulate gradients of several micro-batches, leave out bad ones, and step by the mean.

    Use it in place of ``optax.MultiSteps`` when a batch does not fit into memory, around the
    guard: ``gs.accumulate(gs.guard(optax.adamw(3e-4)), 8)``. With ``A`` the sound micro-batches in
    a group of ``k``, the inner optimizer runs at the last one and gets

    .. math:: \bar g = \sum_{i \in A} w_i g_i \Big/ \sum_{i \in A} w_i

    with ``w = 1`` by default. If micro-batches are means over unequal numbers of samples or
    tokens, ``update(..., weight=n)`` makes it the mean over all of them. A weight of 0 contributes
    nothing, whatever the gradient. Ratios of weights in one group are limited to ``2**60``.

    Before the last micro-batch, and if ``A`` is empty, the updates are zero and the state of
    ``inner`` stays bit-identical. A micro-batch is bad if its gradient has an entry that is not
    finite or a norm above ``2**60``, if its ``value`` is not finite, if its weight is negative or
    not finite, or if a rule rejects it. Bad gradients are left out by selection, so that nothing
    of them remains.

    It is built from scratch: ``optax.MultiSteps`` resets its mean by a product, so that one NaN
    stays in it forever. Around a guard, which then rejects every mean, the run stands still. It
    also runs the inner optimizer in every call, only to discard all results but one.

    Known weakness: if only a few of a group are left, the mean is as noisy as that of a small
    batch, but the step is as long as usual. Put a rule into the guard if that matters.

    Args:
      inner: any optax transform; its schedules count steps, not micro-batches.
      every: ``k``, micro-batches in a group, >= 1, or a function that returns it from the number
        of steps made so far, as for ``optax.MultiSteps``.
      rules: rules for single micro-batches, in addition to the check for finite numbers: rejected
        ones are left out, others are scaled by the verdict. Default: none; the guard inside judges
        the mean.
      axis_name: mesh axes over which the leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with an ``AccumulateState``; updates are those of
      ``inner``. ``gs.has_updated(state)`` says whether the last call made a step. If ``value``
      is passed, ``inner`` gets the mean of the sound ones with the same weights; other extra
      arguments are those of the last call.

    Raises:
      TypeError: if ``inner`` is not a transform, or a rule is not a ``Rule``; in ``update``, for an
        extra argument such as ``weights`` that is a near miss of one of these and that nothing
        inside takes.
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
      >>> for g, tokens in ((1.0, 100), (3.0, 300), (0.0, 0)):
      ...     u, state = tx.update(jnp.full(2, g), state, weight=tokens)
      >>> u.tolist(), bool(gs.has_updated(state))
      ([-2.5, -2.5], True)

    Source:
      Our own; the interface is that of ``optax.MultiSteps``.
    """
    inner = inside("accumulate", inner)
    if not callable(every):
        check_size("every", every, at_least=1)
    rules = tuple(rules)
    check_rules(rules)
    check_axis_name(axis_name)
    judge = all_of(*rules)

    def init_fn(params: optax.Params) -> AccumulateState:
        return start(params, judge.init(params), own_arrays(inner.init(params)))

    update = _Update(inner, every, rules, judge, axis_name, takes([inner.update], "weight"))
    return ScaleAwareTransformation(init_fn, update)


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """The update function, in the order in which a micro-batch is processed."""

    inner: optax.GradientTransformationExtraArgs
    every: int | Callable[[jax.Array], ArrayLike]
    rules: tuple[Rule, ...]
    judge: Rule
    axis_name: AxisName
    nested: bool  # whether an inner transform takes weights too
    reach: Reach = dataclasses.field(default_factory=Reach)

    def __deepcopy__(self, _: object) -> "_Update":
        return self  # like a function

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        weight: ArrayLike | None = None,
        unscale: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        old, inner = check_state(state, AccumulateState, "accumulate"), self.inner
        updates = as_arrays(updates)
        check_taken(extra_args, (inner.update, self.rules), own=_OWN, factory="accumulate")
        extra_args = agreed(extra_args, self.axis_name)
        weighed = self.nested and weight is not None
        of_inner = {**extra_args, "weight": weight} if weighed else extra_args
        seen = self.reach.look(inner, updates, old.wrapped_state, params, of_inner).judged
        measured, verdict, rule_state = self._judge(seen, old, params, unscale, extra_args)
        loss = _loss(extra_args, old.loss_sum.dtype)
        share = share_of(old, mean_over(weight, self.axis_name))
        rule_state = unless_empty(share, rule_state, old.rule_state)
        new = gather(old, seen, measured, judge_rest(verdict, loss, share), loss, share)
        every = self.every(old.emitted) if callable(self.every) else self.every
        full, scaled = new.position >= every, has_loss_scale(old.wrapped_state)
        emit = full & has_news(new, scaled=scaled)

        # The condition returns the sum too: with a select outside, XLA would copy all states.
        def step() -> tuple[Any, Any, Any]:
            of_none = jnp.nan if scaled else 0.0
            mean, given = means(new, updates, extra_args, weighed=weighed, of_none=of_none)
            stepped, inner_state = inner.update(mean, old.wrapped_state, params, **given)
            inner_state = take_types(inner_state, old.wrapped_state, name="state")
            none = jax.tree.map(jnp.zeros_like, new.gradient_sum)
            stepped = only_arrays(keep_finite(jnp.asarray(True), stepped, params))
            return stepped, inner_state, none

        def wait() -> tuple[Any, Any, Any]:
            still = _still(jax.eval_shape(step)[0], only_arrays(updates))
            return still, old.wrapped_state, new.gradient_sum

        with explaining(updates, params):
            new_updates, inner_state, total = run_branch(emit.astype(jnp.int32), (wait, step))
        new_updates = _put_back(new_updates, updates)
        more = rejections(inner_state) != rejections(old.wrapped_state)
        outliers = keep(old.outliers, outlier_of(new.parts), ended=full, rejected=more)
        new = new._replace(gradient_sum=total, outliers=outliers)
        new = begin_again(new, full, emit)
        return new_updates, new._replace(rule_state=rule_state, wrapped_state=inner_state)

    def _judge(
        self,
        updates: Any,
        old: AccumulateState,
        params: Any,
        unscale: ArrayLike | None,
        extra_args: dict[str, Any],
    ) -> tuple[Measure, Verdict, tuple[Any, ...]]:
        """Return the measure and the verdict, whose scale also undoes a loss scale outside."""
        measured = measure_for(self.judge.needs, updates, params, axis_name=self.axis_name)
        measured = unscale_measure(measured, unscale_inside(old.wrapped_state, unscale))
        verdict, rule_state = self.judge.decide(
            measured, old.rule_state, params=params, **extra_args
        )
        scale = local_scale(verdict.scale, updates, axis_name=self.axis_name)
        return measured, verdict._replace(scale=unscale_factors(scale, unscale)), rule_state


def _still(stepped: Any, updates: Any) -> Any:
    """Return updates that change nothing, sharded like the gradients if shapes are the same."""

    def of(like: Any, g: Any) -> jax.Array:
        return unmoved(g).astype(like.dtype) if like.shape == g.shape else unmoved(like)

    if jax.tree.structure(stepped) != jax.tree.structure(updates):
        return jax.tree.map(unmoved, stepped)
    return jax.tree.map(of, stepped, updates)


def _put_back(stepped: Any, updates: Any) -> Any:
    """Return the updates with the original non-array leaves put back."""
    given = [leaf for leaf in jax.tree.leaves(updates) if not is_array(leaf)]
    if not given:
        return stepped
    is_none: Callable[[object], bool] = lambda leaf: leaf is None  # noqa: E731
    return jax.tree.map(lambda new, g: g if new is None else new, stepped, updates, is_leaf=is_none)


def _loss(extra_args: dict[str, Any], dtype: DTypeLike) -> jax.Array | None:
    value = extra_args.get("value")
    return None if value is None else check_value(value, "accumulate", dtype)
