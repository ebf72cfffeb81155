"""Roll back to the last good parameters when a run has left its basin."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from gradstable._src.core.act import keep_finite
from gradstable._src.core.agreed import agreed
from gradstable._src.core.axis_name import AxisName
from gradstable._src.core.checks import check_choice, check_dtype, check_size
from gradstable._src.core.equations import as_arrays, as_at_init, only_arrays
from gradstable._src.core.find import find_all
from gradstable._src.core.in_one import in_one
from gradstable._src.core.ledger import Ledger
from gradstable._src.core.numerics import increment
from gradstable._src.core.order import inside
from gradstable._src.core.reach import Reach
from gradstable._src.core.reasons import LET_IN, Reason
from gradstable._src.core.scale import UNSCALE, unscale_measure, wrapping
from gradstable._src.core.select import own_arrays, select_tree
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_params, check_state, check_value
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.unit_norms import measure_for
from gradstable._src.core.wrapped import explaining
from gradstable._src.hold import hold
from gradstable._src.precision.inside import unscale_inside
from gradstable._src.recovery.bring import arrange, bring
from gradstable._src.recovery.counts import pass_by
from gradstable._src.recovery.level import Level, heights_of, learn, new_level
from gradstable._src.recovery.snapshot import content_of, lead_back, new_snapshots, params_of
from gradstable._src.recovery.turn import (
    Limits,
    RollbackState,
    Seen,
    compare,
    diverged,
    start,
    turn_of,
    turned,
)
from gradstable._src.recovery.watch import Watch, rejection_of, see
from gradstable._src.rules.loss_spike import loss_spike
from gradstable._src.rules.protocol import Rule, all_of, check_rules


@shown
def rollback(
    inner: optax.GradientTransformation,
    *rules: Rule,
    every: int = 100,
    patience: int = 12,
    rejections: int = 50,
    copies: int = 2,
    max_restores: int = 5,
    dtype: DTypeLike | None = None,
    restore_by: str = "updates",
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep copies of a run, and roll back to the last good one when the loss diverges for good.

    Use it around the guard when rejecting steps is not enough, because steps that looked sound
    have led the parameters out of their basin: ``gs.rollback(gs.guard(optax.adamw(3e-4)))``, with
    ``value=loss`` in every call of ``update``. The data are not rolled back, so the run does not
    see the same batches again. Put ``gs.backoff`` around it to make smaller steps after that.

    A step is *bad* if a rule would reject it. With ``b`` bad steps minus good ones (never below 0),
    and ``r`` steps in a row that the guard inside rejected or whose gradient was not finite, it
    rolls back if the run is worse off than its newest copy and

    .. math:: b \ge m \ \lor\ r \ge \min(3 m, n)

    or if :math:`r \ge n` and the last gradient was not finite. A run is worse off if three quarters
    of the last :math:`m` losses (of 12, if that is more) are above nine tenths of the good ones
    before the copy, if that rise is more than three times as large as any that the run came back
    from in the last 500 steps, and if the loss is not falling by a tenth of it in six steps. So
    losses may be noisy, negative, or come and go in waves. Three of the bad steps must not have
    been rejected: what is rejected can be a bad batch, and moves nothing. If all steps since the
    copy was taken were rejected, they do not count: the parameters are those of the copy. Nor does
    a loss lead back to the first copy, from before the first step.

    A rollback restores parameters, inner state (moments, schedules) and rules from the newest copy
    bit for bit, or from the older one if that was taken less than ``patience`` steps before the
    loss rose; only the records of the guard stay. Then the parameters stand still for three losses.
    If two of them are still high, the data have changed, not the parameters, and the rollback is
    *undone*: the run goes on from where it was, bit for bit, with that level as usual, and it takes
    twice the patience until the next rollback (up to 32 times; each copy halves it). The oldest
    copy gives way to the state before the rollback, so with ``copies=1`` nothing can be undone. If
    the run diverges again before a new copy is taken, the next older copy is used, if there is one;
    until then, rules that get used to a loss that creeps up are not asked, only the level of the
    copy. After ``max_restores`` failed rollbacks it rolls back once more, and pauses the run from
    then on: ``gs.check`` raises, and ``gs.recovery.last_good`` returns the parameters.

    It rolls back through updates: ``u = q - p`` takes ``p`` to ``q`` where that is exact, else it
    takes a second step (proof and cases in ``gradstable/_src/recovery/snapshot.py``). The next step
    compares, and does nothing else until all entries are equal. No update can recover from a NaN,
    or distinguish -0.0 and subnormals from 0.0. ``gs.recovery.restored`` can.

    Cost: each copy is as large as parameters and inner state. Steps read one more word per
    parameter, since updates come from one of two places; with ``restore_by="caller"`` they do not.

    Known weakness: it follows a loss that creeps up, because rules regard what lasts as usual. A
    run that is lost before its first copy stays lost. Where a jump of the data and noise come
    together, three losses can mistake luck for help, and some progress is lost.

    Args:
      inner: any optax transform, preferably a guard around an optimizer.
      *rules: what makes a step bad. Default: ``loss_spike(reject_at=2, rate=0.02)``, which needs
        ``value``. Since it takes many bad steps to roll back, the limit can be low.
      every: steps between copies, >= 1. Default 100. A copy waits for ``patience`` good steps in a
        row.
      patience: ``m``, >= 1. Default 12, so that it ignores a burst of ten bad batches.
      rejections: ``n``, >= 1. Default 50.
      copies: how many to keep, >= 1. Default 2, the least with which a rollback can be undone.
      max_restores: rollbacks in a row without a new copy after which it gives up, >= 1. Default 5.
      dtype: dtype of the real arrays in the copies, if they are wider. Default ``None``: unchanged,
        so that copies are exact. With ``jnp.bfloat16`` a copy takes half as much memory, and the
        run rolls back to rounded numbers.
      restore_by: ``"updates"``, or ``"caller"`` if your step calls ``gs.recovery.restored`` after
        ``optax.apply_updates``; the run then pauses until it does.
      axis_name: mesh axes over which the leaves are sharded, as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` with a ``RollbackState``; ``update`` needs ``params``.
      Updates have the structure and the dtypes that ``inner`` gives them.

    Raises:
      TypeError: if ``inner`` is not a transform, a rule is not a ``Rule``, or ``dtype`` is not a
        floating-point dtype.
      ValueError: if a number is out of range, or ``inner`` contains a rollback or a back-off; in
        ``update`` if ``params`` are missing, or if a rule needs ``value`` and it is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.rollback(gs.guard(optax.sgd(0.1)), every=5, patience=5)
      >>> params = jnp.ones(())
      >>> state = tx.init(params)
      >>> for step in range(60):
      ...     lost = 40 <= step < 47
      ...     updates, state = tx.update(
      ...         -params if lost else params, state, params, value=10.0 if lost else 1.0
      ...     )
      ...     params = optax.apply_updates(params, updates)
      >>> int(state.restores), int(state.restored_to)
      (1, 36)

    Source:
      Our own. Others do it by hand: PaLM (2022, arXiv:2204.02311) rolls back about 100 steps and
      skips 200 to 500 batches; OPT (2022, arXiv:2205.01068) rolls back and lowers the rate.
    """
    inner = inside("rollback", inner)
    check_rules(rules)
    for name, number in (
        ("every", every),
        ("patience", patience),
        ("rejections", rejections),
        ("copies", copies),
        ("max_restores", max_restores),
    ):
        check_size(name, number, at_least=1)
    if dtype is not None:
        check_dtype("dtype", dtype)
    check_choice("restore_by", restore_by, ("updates", "caller"))
    judge = all_of(*rules or (loss_spike(reject_at=2.0, rate=0.02),))

    def init_fn(params: optax.Params) -> RollbackState:
        inner_state = own_arrays(inner.init(params))
        rule_state = judge.init(params)
        content = content_of(only_arrays(params), inner_state, rule_state, dtype)
        return start(new_level(), rule_state, new_snapshots(content, copies), inner_state)

    limits = Limits(every, patience, rejections, max_restores)
    update = _Update(inner, judge, limits, dtype, restore_by == "updates", axis_name)
    return wrapping(inner, init_fn, update)


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """The update function, in the order in which a step is processed."""

    inner: optax.GradientTransformationExtraArgs
    judge: Rule
    limits: Limits
    dtype: DTypeLike | None
    by_updates: bool
    axis_name: AxisName
    reach: Reach = dataclasses.field(default_factory=Reach)

    def __deepcopy__(self, _: object) -> "_Update":
        return self  # like a function

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RollbackState]:
        old = check_state(state, RollbackState, "rollback")
        updates, extra_args = as_arrays(updates), agreed(extra_args, self.axis_name)
        known = as_at_init(check_params(params, "rollback"), updates)
        inner = self.reach.look(self.inner, updates, old.wrapped_state, params, extra_args)
        old = old._replace(calls=increment(old.calls))
        measured, verdict, rule_state = self._judge(inner.judged, old, known, extra_args)
        value = extra_args.get("value")
        loss = None if value is None else check_value(value, "rollback")
        heights = heights_of(old.level, loss, measured.finite, self.limits.patience)
        seen = Seen(verdict.accept, measured.finite, loss, heights)
        lost = diverged(old, self.limits, seen)
        old, sound = compare(old, lost, known, self.axis_name)
        turn = in_one(turn_of(old, self.limits, seen, lost=lost, sound=sound))
        new, slot = arrange(turned(old, turn, seen), turn, heights)
        new, kept_rules = bring(new, turn, slot, known, self.dtype)
        inner_state = new.wrapped_state

        # Values that a guard reports, such as the norm of a broken gradient, need not be finite.
        guarded = bool(find_all(inner_state, Ledger))
        with explaining(updates, params):
            stepped, inner_state = hold(
                inner.update,
                turn.runs,
                updates,
                inner_state,
                params,
                entries=not guarded,
                equations=inner.equations,
            )
        inner_state = pass_by(inner_state, ~turn.runs, measured)
        broken = jnp.where(measured.finite, 0, jnp.asarray(Reason.NONFINITE, jnp.int32))
        rejection = rejection_of(inner_state)
        watch = see(new.watch, verdict, broken if rejection is None else rejection)
        level = self._level(new, watch, seen)
        rule_state = select_tree(turn.runs, rule_state, kept_rules, name="rule state")
        new = new._replace(
            watch=select_tree(turn.runs, watch, new.watch, name="watch"),
            level=select_tree(turn.runs, level, new.level, name="level"),
            rule_state=select_tree(
                turn.renews, self.judge.init(known), rule_state, name="rule state"
            ),
            wrapped_state=inner_state,
        )
        new = _numbers_in_one(new)
        stepped = keep_finite(turn.runs, stepped, params)
        if self.by_updates:
            wanted = params_of(new.snapshots, known)
            stepped = lead_back(new.attempts > 0, known, wanted, stepped)
        return stepped, new

    def _level(self, old: RollbackState, watch: Watch, seen: Seen) -> Level:
        if seen.loss is None:
            return old.level
        return learn(
            old.level,
            seen.heights,
            seen.loss,
            good=watch.good > 0,
            bad=watch.moves > old.watch.moves,
            sound=seen.finite,
            calm=watch.good >= self.limits.patience,
        )

    def _judge(
        self, updates: Any, old: RollbackState, params: Any, extra_args: dict[str, Any]
    ) -> tuple[Measure, Verdict, Any]:
        measured = measure_for(self.judge.needs, updates, params, axis_name=self.axis_name)
        unscale = unscale_inside(old.wrapped_state, extra_args.get(UNSCALE))
        measured = unscale_measure(measured, unscale)
        context = {name: given for name, given in extra_args.items() if name != UNSCALE}
        verdict, state = self.judge.decide(measured, old.rule_state, params=params, **context)
        # What a rule lets in, since it keeps coming back, is still far above what is usual.
        known = jnp.any(verdict.reason == jnp.asarray(LET_IN, jnp.int32))
        return measured, verdict._replace(accept=verdict.accept & ~known), state


def _numbers_in_one(state: RollbackState) -> RollbackState:
    """Return a state with all numbers but those of what is inside computed in one program."""
    own = in_one(state._replace(snapshots=state.snapshots.copies, wrapped_state=None))
    snapshots = state.snapshots._replace(copies=own.snapshots)
    return own._replace(snapshots=snapshots, wrapped_state=state.wrapped_state)
