"""A rule as a separate transform, for a plain ``optax.chain``."""

from typing import Any, NamedTuple

import optax

from gradstable._src.core.act import keep_finite, scale_updates
from gradstable._src.core.agreed import agreed
from gradstable._src.core.axis_name import AxisName, check_axis_name
from gradstable._src.core.ledger import Ledger, enter, new_ledger
from gradstable._src.core.shown import shown
from gradstable._src.core.tree_checks import check_state, check_updates
from gradstable._src.core.unit_norms import local_scale, measure_for
from gradstable._src.core.units import Units, check_units
from gradstable._src.rules.protocol import Rule, all_of, check_rules


class JudgedState(NamedTuple):
    """State of ``clip_by``."""

    ledger: Ledger
    rule_state: tuple[Any, ...]  # one entry per rule


@shown
def clip_by(
    *rules: Rule, units: Units | None = None, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Apply rules to the gradients as one link of a chain.

    Use it where you want a rule in your own chain. It returns zeros for a rejected step, which
    the optimizer after it still treats as a gradient: counters advance and moments decay. To
    prevent that, put ``gs.guard`` around the whole chain instead.

    .. math:: g' = \begin{cases} scale \cdot g & \text{accept} \\ 0 & \text{reject} \end{cases}

    Args:
      *rules: decisions, in order of precedence, from ``gs.rules``; the finite check is always on.
      units: as for ``gs.guard``, for rules that do not set their own.
      axis_name: as for ``gs.guard``.

    Returns:
      A ``GradientTransformationExtraArgs`` whose updates have the structure and the dtypes of
      the gradients; ``gs.health`` and ``gs.explain`` read its state.

    Raises:
      TypeError: if a rule is not a ``Rule``, or ``units`` or ``axis_name`` is of the wrong type.
      ValueError: if a kind of units is unknown.

    Example:
      >>> import optax
      >>> import gradstable as gs
      >>> tx = optax.chain(gs.clipping.clip_by(gs.rules.log_mad(clip_at=2.0)), optax.sgd(0.1))

    Source:
      Our own.
    """
    check_rules(rules)
    check_axis_name(axis_name)
    if units is not None:
        check_units(units)
    judge = all_of(*rules)

    def init_fn(params: optax.Params) -> JudgedState:
        return JudgedState(ledger=new_ledger(params), rule_state=judge.init(params))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, JudgedState]:
        ledger, rule_state = check_state(state, JudgedState, "clip_by")
        updates, params = check_updates(updates, params)
        extra_args = agreed(extra_args, axis_name)
        measured = measure_for(judge.needs, updates, params, axis_name=axis_name, units=units)
        verdict, rule_state = judge.decide(measured, rule_state, params=params, **extra_args)
        scale = local_scale(verdict.scale, updates, axis_name=axis_name)
        scaled = scale_updates(updates, scale)
        new_state = JudgedState(ledger=enter(ledger, measured, verdict), rule_state=rule_state)
        return keep_finite(verdict.accept, scaled, None), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
