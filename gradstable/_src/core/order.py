"""The order of wrappers: which must not be around which, why, and an order that is right.

Most orders work. Those in ``_WRONG`` do harm in silence, and are refused: at construction where a
wrapper sees what it wraps, and otherwise at ``init``, where the state shows it, however deep it is
in chains and masks. ``tests/recipes/test_order.py`` tries all orders of up to four wrappers.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import optax

from gradstable._src.core.checks import check_transform
from gradstable._src.core.names import Unnamed
from gradstable._src.core.shown import factories_in

# All wrappers, and one link of chains that is as particular, the outermost first: one order that is
# right, and how each is called in it.
ORDER = {
    "average": "gradstable.sharding.average({}, 'data')",
    "record": "gradstable.record({})",
    "stochastic_round": "optax.chain({}, gradstable.precision.stochastic_round())",
    "kahan": "gradstable.precision.kahan({})",
    "loss_scale": "gradstable.loss_scale({})",
    "accumulate": "gradstable.accumulate({}, every=8)",
    "backoff": "gradstable.backoff({})",
    "moment_hygiene": "gradstable.recovery.moment_hygiene({})",
    "rollback": "gradstable.rollback({})",
    "govern": "gradstable.govern({})",
    "guard": "gradstable.guard({})",
    "schedule_free": "gradstable.recipes.schedule_free({}, learning_rate=1e-3)",
    "cautious": "gradstable.moments.cautious({}, descends=True)",
    "compress_moments": "gradstable.precision.compress_moments({})",
}
# What these do depends on the verdicts of a guard inside.
_NEED_A_GUARD = frozenset({"loss_scale", "backoff", "moment_hygiene"})


class _Wrong(NamedTuple):
    """Wrappers that must not be around others."""

    outer: frozenset[str]
    inner: frozenset[str]
    why: str


def _wrong(outer: str, inner: str, why: str) -> _Wrong:
    return _Wrong(frozenset(outer.split()), frozenset(inner.split()), why)


_HELD = "a guard holds everything inside it in a step that it rejects, "
_WRONG = (
    _wrong(
        "guard schedule_free",
        "rollback",
        _HELD + "and a run whose gradients have become large or broken would never be rolled back",
    ),
    _wrong(
        "guard schedule_free",
        "record",
        _HELD + "so the record would miss these steps",
    ),
    _wrong(
        "guard schedule_free",
        "backoff moment_hygiene",
        _HELD + "so these steps would not be counted",
    ),
    _wrong(
        "guard schedule_free",
        "accumulate",
        _HELD + "so a rejected micro-batch would not count as one of its group, and "
        "gs.has_updated would be wrong after it",
    ),
    _wrong(
        "rollback",
        "backoff",
        "a rollback would restore the factor that it should lower, and the run would go over the "
        "same edge at the same speed",
    ),
    _wrong(
        "govern cautious schedule_free",
        "rollback",
        "updates that lead back to a copy must arrive unchanged",
    ),
    _wrong(
        "govern backoff cautious",
        "kahan",
        "kahan keeps what rounding takes from its updates, so they must arrive unchanged",
    ),
    _wrong(
        "loss_scale schedule_free",
        "kahan",
        "what is inside sees float16 parameters in float32, where there is nothing to compensate",
    ),
    _wrong(
        "govern backoff cautious",
        "stochastic_round",
        "a step that was rounded at random would be scaled and rounded once more, to the nearest "
        "number: the scale has no effect, or nothing moves",
    ),
    _wrong(
        "loss_scale schedule_free",
        "stochastic_round",
        "what is inside sees low-precision parameters in float32, where there is nothing to round",
    ),
    _wrong(
        "record loss_scale accumulate rollback govern guard schedule_free cautious",
        "average",
        "each device would judge its own gradient, and decide for itself",
    ),
    _wrong(
        "compress_moments",
        "rollback",
        "the copies would hold the moments in float32",
    ),
    _wrong(
        "kahan",
        "kahan",
        "the same rounding would be compensated twice",
    ),
    _wrong(
        "loss_scale",
        "loss_scale",
        "gs.scale_loss could not tell by which of them to multiply the loss",
    ),
    _wrong(
        "average",
        "average",
        "gradients are the same on all devices after the first mean",
    ),
    _wrong(
        "rollback",
        "rollback",
        "each copy of one would hold all copies of the other",
    ),
)


def inside(factory: str, inner: object) -> optax.GradientTransformationExtraArgs:
    """Return the transform that a wrapper wraps, checked, and with an ``init`` that checks.

    Args:
      factory: the name of the wrapper, one of ``ORDER``.
      inner: what the user passed as ``inner``.

    Raises:
      TypeError: if it is not a transform.
      ValueError: if it contains a wrapper that must not be inside this one; for those that cannot
        be seen yet, such as the links of ``optax.chain``, in ``init``.
    """
    transform = check_transform("inner", inner)
    _check(factory, factories_in(transform))

    def init_fn(params: optax.Params) -> optax.OptState:
        state = transform.init(params)
        _check(factory, _wrappers_in(state))
        return state

    return transform._replace(init=init_fn)


def is_wrong(outer: str, inner: str) -> bool:
    """Whether one wrapper must not be anywhere around another."""
    return any(outer in wrong.outer and inner in wrong.inner for wrong in _WRONG)


def may_be_around(outer: str, state: object) -> bool:
    """Whether a wrapper may be around a transform with this state."""
    return not any(is_wrong(outer, inner) for inner in _wrappers_in(state))


def in_order(factories: Iterable[str]) -> str:
    """Return code that nests these wrappers in an order that is right."""
    wanted = set(factories)
    if wanted & _NEED_A_GUARD and not wanted & {"guard", "schedule_free"}:
        wanted.add("guard")
    code = "optimizer"
    for name, call in reversed(ORDER.items()):
        code = call.format(code) if name in wanted else code
    return code


def _check(outer: str, found: Iterable[str]) -> None:
    inner = [name for name in found if name in ORDER]
    for name in inner:
        for wrong in _WRONG:
            if outer in wrong.outer and name in wrong.inner:
                order = in_order([outer, *inner])
                msg = f"{outer} must not be around {name}: {wrong.why}. Right is {order}"
                raise ValueError(msg)


_FACTORIES = {f"{name.title().replace('_', '')}State": name for name in ORDER}


def _wrappers_in(state: Any) -> Iterator[str]:
    """Yield the wrappers whose states are in a state, by the names of their types."""
    if isinstance(state, Unnamed):
        return  # a tree like the parameters, or an old copy
    if type(state).__module__.startswith("gradstable.") and type(state).__name__ in _FACTORIES:
        yield _FACTORIES[type(state).__name__]
    for node in jax.tree.leaves(state, is_leaf=lambda node: node is not state):
        if node is not state:
            yield from _wrappers_in(node)
