"""What a rule is, and how to combine several into one.

A rule decides about a whole step from a few numbers: it sees a ``Measure``, never an array
of the size of the parameters. So ten rules cost as much as one, and a rule can be tested on
scalars.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from gradstable._src.core.act import settle
from gradstable._src.core.derivatives import constant
from gradstable._src.core.numerics import in_dtype, largest_norm_in, widest
from gradstable._src.core.reasons import Reason
from gradstable._src.core.scale import combine, countable, positive
from gradstable._src.core.select import own_arrays, select_tree
from gradstable._src.core.shown import shown
from gradstable._src.core.types import Measure, Verdict
from gradstable._src.core.unit_norms import UnitRequest

# A norm above this overflows (or nearly overflows) float32 when it is squared: second moments
# would become inf.
MAX_NORM = largest_norm_in(jnp.float32)


class Rule(NamedTuple):
    """A pure decision about a step, made of two functions.

    Attributes:
      init: ``params -> state``: the initial statistics, any tree of arrays (``()`` if none).
      decide: ``(measure, state, **context) -> (Verdict, state)``. The context holds
        ``params`` and everything passed to ``update`` by keyword (``value=``, ...); take
        what you need by name and ignore the rest with ``**_``.
      needs: which norms of units ``measure.units`` should have, one ``UnitRequest`` each.
        Default: none; each costs one more read of the gradients.

    Example:
      >>> import gradstable as gs
      >>> import jax.numpy as jnp
      >>> import optax
      >>> def reject_above(limit):
      ...     def decide(measure, state, **_):
      ...         calm = measure.norm <= limit
      ...         verdict = gs.Verdict.of(
      ...             accept=calm, reason=jnp.where(calm, 0, 41), threshold=limit
      ...         )
      ...         return verdict, state
      ...
      ...     return gs.rules.Rule(init=lambda params: (), decide=decide)
      >>> tx = gs.guard(optax.sgd(0.1), reject_above(10.0))
    """

    init: Callable[[Any], Any]
    decide: Callable[..., tuple[Verdict, Any]]
    needs: tuple[UnitRequest, ...] = ()


def check_rules(rules: object) -> None:
    """Raise ``TypeError`` for anything that is not a ``Rule``, with its position and a remedy."""
    alone = isinstance(rules, (Rule, optax.GradientTransformation))
    if alone or not isinstance(rules, Sequence):
        msg = (
            "rules must be a tuple of rules such as (gs.rules.log_mad(),), "
            f"got {rules!r} of type {type(rules).__name__}"
        )
        raise TypeError(msg)
    for position, rule in enumerate(cast("Sequence[object]", rules)):
        if not isinstance(rule, Rule):
            msg = (
                f"rule {position} must be a gradstable.rules.Rule such as gs.rules.log_mad(), "
                f"got {rule!r} of type {type(rule).__name__}{_remedy(rule)}"
            )
            raise TypeError(msg)


def _remedy(rule: object) -> str:
    if isinstance(rule, optax.GradientTransformation):
        return ". It is a transform: put both into optax.chain(transform, optimizer)"
    if isinstance(rule, (list, tuple)):
        return ". Unpack it with a star, as in gs.guard(optimizer, *rules)"
    if callable(rule):
        return f". It is a function: call it first, as in {getattr(rule, '__name__', 'it')}(...)"
    if isinstance(rule, (int, float, jax.Array)):
        return ". For a fixed limit use gs.rules.global_norm(limit)"
    return ""


@shown
def all_of(*rules: Rule) -> Rule:
    """Compose rules, and put the checks that are always on around them.

    A step is accepted if all rules accept it. The scale is the smallest one, so that two rules
    that see the same spike do not punish it twice (if rules scale leaves or units, the smallest
    for each; scales above 1 multiply). The reason is that of the first rule to reject, else of
    the first to clip. Two checks that need no history are added:

    - a gradient with a NaN or infinite entry is rejected;
    - so is one that, after scaling, has a norm above ``2**60``: its square overflows float32
      (float64 leaves of float64 parameters: above ``2**500``).

    Neither ever reaches the statistics of a rule, so none can be poisoned. A scale that is
    zero, negative or NaN cannot be applied, so it also rejects the step.

    Args:
      *rules: in order of precedence.

    Returns:
      A ``Rule`` whose state is the tuple of the rules' states.

    Raises:
      TypeError: if one is not a ``Rule``.

    Example:
      >>> import gradstable as gs
      >>> rule = gs.rules.all_of(gs.rules.global_norm(2.0), gs.rules.log_mad())
      >>> verdict, _ = rule.decide(gs.Measure.of(8.0), rule.init({}))
      >>> float(verdict.scale)
      0.25
    """
    check_rules(rules)

    def init(params: Any) -> tuple[Any, ...]:
        states = own_arrays(tuple(rule.init(params) for rule in rules))
        return in_dtype(states, widest(params))

    def decide(measure: Measure, state: tuple[Any, ...], **context: Any) -> tuple[Verdict, Any]:
        # No derivative goes through a decision, nor through its inputs.
        measure, state, context = constant((measure, state, context))
        total = Verdict.of()
        new_state: list[Any] = []
        units = iter(measure.units)
        for position, (rule, rule_state) in enumerate(zip(rules, state, strict=True)):
            seen = measure._replace(units=tuple(itertools.islice(units, len(rule.needs))))
            decided = rule.decide(seen, rule_state, **context)
            verdict, rule_state = _check_decided(position, decided)
            total = _merge(total, Verdict.of(*verdict))
            new_state.append(rule_state)
        finite = measure.finite
        kept = select_tree(finite & countable(measure), tuple(new_state), state, name="rule state")
        return settle(_finish(total, measure, finite), measure), kept

    return Rule(
        init=init, decide=decide, needs=tuple(need for rule in rules for need in rule.needs)
    )


def _check_decided(position: int, decided: object) -> tuple[Verdict, Any]:
    match decided:
        case (Verdict() as verdict, state):
            return verdict, state
        case _:
            msg = (
                f"decide of rule {position} must return (verdict, state), with a verdict such as "
                f"gs.Verdict.of(accept=...), got {decided!r} of type {type(decided).__name__}"
            )
            raise TypeError(msg)


def _merge(first: Verdict, second: Verdict) -> Verdict:
    first_speaks = (~first.accept) | (second.accept & (first.reason != Reason.OK))
    return Verdict(
        accept=first.accept & second.accept,
        scale=combine(first.scale, second.scale),
        reason=jnp.where(first_speaks, first.reason, second.reason),
        threshold=jnp.minimum(first.threshold, second.threshold),
    )


def _finish(verdict: Verdict, measure: Measure, finite: jax.Array) -> Verdict:
    # A NaN scale or norm makes every comparison False, and so rejects.
    bounded = positive(verdict.scale) & countable(measure, verdict.scale)
    accept = finite & verdict.accept & bounded
    reason = jnp.where(verdict.accept & ~bounded, Reason.OVERFLOW, verdict.reason)
    reason = jnp.where(finite, reason, Reason.NONFINITE)
    return Verdict(
        accept=accept,
        scale=jax.tree.map(lambda factor: jnp.where(accept, factor, 0.0), verdict.scale),
        reason=reason.astype(jnp.int32),
        threshold=verdict.threshold,
    )
