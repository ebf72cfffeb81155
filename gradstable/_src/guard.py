"""The one line: wrap any optax transform so that no gradient can blow up the run."""

from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

from gradstable._src.core.act import keep_finite, scale_updates
from gradstable._src.core.agreed import agreed
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.eager import when_repeated
from gradstable._src.core.equations import as_arrays, only_arrays
from gradstable._src.core.in_one import in_one
from gradstable._src.core.ledger import Ledger, enter, new_ledger
from gradstable._src.core.names import answers_as_inner
from gradstable._src.core.order import inside
from gradstable._src.core.reach import Reach
from gradstable._src.core.scale import ScaleAwareTransformation, unscale_factors, unscale_measure
from gradstable._src.core.select import own_arrays
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state
from gradstable._src.core.unit_norms import local_scale, measure_for
from gradstable._src.core.units import Units, check_units
from gradstable._src.core.wrapped import check_results, explaining
from gradstable._src.hold import hold
from gradstable._src.precision.inside import runs_inner, unscale_inside
from gradstable._src.rules.log_mad import log_mad
from gradstable._src.rules.protocol import Rule, all_of, check_rules


@answers_as_inner
class GuardState(NamedTuple):
    """State of ``guard``."""

    ledger: Ledger
    rule_state: tuple[Any, ...]  # one entry per rule
    wrapped_state: Any


@shown
def guard(
    inner: optax.GradientTransformation,
    *rules: Rule,
    axis_name: AxisName = None,
    units: Units | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Protect an optimizer: clip large gradients, reject broken ones, and say what happened.

    One pass over the gradients measures them, the rules decide on these few numbers, and the
    guard acts on the verdict:

    - *accepted*: the gradient, times the verdict's scale, goes to ``inner``;
    - *rejected*: the updates are zero and the state of ``inner`` stays bit-identical,
      schedules and counters included. A broken gradient is never let through, however many
      came before it.

    .. math:: (u, s') = \begin{cases} inner(scale \cdot g, s) & \text{accept} \\
                                      (0, s) & \text{reject} \end{cases}

    Only gradients that ``inner`` reads are judged: those of leaves that it drops, as
    ``optax.set_to_zero`` does in ``optax.partition``, can do no harm. Leaves that are not arrays
    pass through.

    A gradient with NaN or infinite entries is always rejected, and so is one whose square
    would overflow float32 (norm above ``2**60`` after scaling). On steps that no rule
    touches, updates equal those of ``inner`` bit for bit outside ``jit``, and to rounding
    inside (XLA may contract operations differently).

    Rejecting a whole step is exact. Behind that is a last line of defense, entry by entry: a
    state value that an *accepted* update would make non-finite in its own dtype keeps its old
    value (in a dtype of small range, such as float16, it becomes the largest number). An update
    is set to zero where it, or the parameter it leads to, would be non-finite. The guard can only
    check parameters if you pass ``params``, as is usual in optax.

    Args:
      inner: any optax transform, unmodified: an optimizer or a whole chain. Put the guard
        around everything that has a state, except for the wrappers that have to hear of rejected
        steps, and so come outside: ``gs.protect`` knows the order.
      *rules: decisions, in order of precedence, from ``gs.rules``. Default: ``log_mad()``.
      axis_name: mesh axes over which the gradient leaves are *split* inside ``jax.shard_map``, so
        that all devices decide alike: a name or several; or the ``PartitionSpec`` of the leaves,
        one or a tree of them as in ``in_specs``, which rules for units need. A leaf that is known
        to be the same everywhere counts once (with ``check_vma=False``: only if specs say so).
        Default ``None``: right under ``jit``, whatever the shardings, and where gradients have
        already been averaged (``pmean``).
      units: the parts of a leaf that rules such as ``unit_norm`` judge separately, for rules that
        do not set their own: a kind (``"flax"``, ``"leaf"``, ``"output"``, ``"layer"``,
        ``"stacked"``, ``"head"``), a tuple of the axes that tell units apart, a function from
        (path, leaf) to one of these, or a tree of them. Default: the default of each rule.

    Returns:
      A ``GradientTransformationExtraArgs``. Extra arguments go to the rules and to ``inner``,
      except for ``unscale``, a factor by which to multiply the gradients of a scaled loss
      (``gs.loss_scale`` passes it).
      Its state is a ``GuardState``, read by ``gs.health`` and ``gs.explain``. Updates have
      the structure and the dtypes that ``inner`` gives them.

    Raises:
      TypeError: if ``inner`` is not a transform, a rule is not a ``Rule``, or ``units`` or
        ``axis_name`` is of the wrong type.
      ValueError: if a kind of units is unknown, or ``inner`` contains a record, a rollback, a
        back-off, or an accumulation; in ``update``, if an axis is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.adamw(3e-4))
      >>> params = {"w": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> bad = {"w": jnp.array([1.0, jnp.nan, 1.0])}
      >>> updates, state = tx.update(bad, state, params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [1.0, 1.0, 1.0]
      >>> int(gs.health(state).rejected)
      1

    Source:
      Our own; see ``docs/design`` for the measurements behind it.
    """
    inner = inside("guard", inner)
    check_rules(rules)
    check_axis_name(axis_name)
    if units is not None:
        check_units(units)
    judge = all_of(*rules or (log_mad(),))

    def init_fn(params: optax.Params) -> GuardState:
        return GuardState(
            ledger=new_ledger(params),
            rule_state=judge.init(params),
            wrapped_state=own_arrays(inner.init(params)),
        )

    update = _Update(inner, judge, axis_name, units)
    return ScaleAwareTransformation(init_fn, update)


class _Update:
    """The update function: measure, decide, act."""

    def __init__(
        self,
        inner: optax.GradientTransformationExtraArgs,
        judge: Rule,
        axis_name: AxisName,
        units: Units | None,
    ) -> None:
        self._inner, self._judge, self._axis_name = inner, judge, axis_name
        self._units: Units | None = units
        self._reach = Reach()
        self._decide_in_a_loop = when_repeated(partial(self._decide, exact=True))

    def __deepcopy__(self, _: object) -> "_Update":
        return self  # like a function

    def __call__(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        unscale: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GuardState]:
        old = check_state(state, GuardState, "guard")
        updates, extra_args = as_arrays(updates), agreed(extra_args, self._axis_name)
        inner = self._reach.look(self._inner, updates, old.wrapped_state, params, extra_args)
        with explaining(updates, params):
            arrays = only_arrays(params)
            decide = self._decide_in_a_loop if inner.equations is None else self._decide
            factors = unscale, unscale_inside(old.wrapped_state, unscale)
            accept, finite, scaled, ledger, rule_state = decide(
                inner.judged, updates, arrays, old.ledger, old.rule_state, factors, extra_args
            )
            runs = runs_inner(accept, finite, old.wrapped_state)
            new_updates, inner_state = hold(
                inner.update, runs, scaled, old.wrapped_state, params, equations=inner.equations
            )
        check_results(new_updates, updates, params)
        new_state = GuardState(ledger=ledger, rule_state=rule_state, wrapped_state=inner_state)
        return keep_finite(accept, new_updates, params), new_state

    def _decide(
        self,
        seen: Any,
        updates: Any,
        params: Any,
        ledger: Ledger,
        rule_state: tuple[Any, ...],
        factors: tuple[ArrayLike | None, ArrayLike | None],
        extra_args: dict[str, Any],
        *,
        exact: bool = False,
    ) -> tuple[jax.Array, jax.Array, Any, Ledger, tuple[Any, ...]]:
        """Return whether to accept, whether all is finite, the scaled gradients, and the record.

        The first factor undoes a loss scale outside the guard, and applies to the gradients that
        are passed on. The second also undoes one inside it, and only applies to what is judged.
        """
        judge, axis_name = self._judge, self._axis_name
        measured = measure_for(judge.needs, seen, params, axis_name=axis_name, units=self._units)
        unscale, unscale_all = factors
        measured = unscale_measure(measured, unscale_all)
        verdict, rule_state = judge.decide(measured, rule_state, params=params, **extra_args)
        ledger = enter(ledger, measured, verdict)
        verdict, finite, ledger, rule_state = in_one((verdict, measured.finite, ledger, rule_state))
        scale = local_scale(verdict.scale, seen, axis_name=axis_name)
        scaled = scale_updates(updates, unscale_factors(scale, unscale), exact=exact)
        return verdict.accept, finite, scaled, ledger, rule_state
