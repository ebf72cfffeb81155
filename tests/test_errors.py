"""What is wrong is refused early, by the name of the argument or the path of the leaf."""

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.typing import ArrayLike

import gradstable as gs
from gradstable._src.testing.material import default_params, gradients
from tests.registry import Case, Entry, cases, entries, resolve
from tests.registry.entry import NEVER

NUMERIC = [
    pytest.param(entry, name, id=f"{entry.name}({name}=)")
    for entry in entries()
    for name in entry.numbers
]


def factory_of(entry: Entry) -> Callable[..., Any]:
    return resolve(entry.name)


def named(value: object) -> str | None:
    return getattr(value, "__name__", None) or re.sub(r" at 0x\w+", "", repr(value))


@pytest.mark.parametrize(("entry", "name"), NUMERIC)
def test_bad_number_is_refused_by_name(entry: Entry, name: str) -> None:
    never = [bad for bad in NEVER if not (bad is None and name in entry.optional)]
    for value in (*entry.numbers[name], *never):
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b") as raised:
            factory_of(entry)(**{**entry.required, name: value})
        assert raised.traceback[-1].path.name == "checks.py", value


def kinds_of(annotation: Any) -> set[Any]:
    united = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return set(typing.get_args(annotation)) if united else {annotation}


_ALONE = [{int}, {float}, *map(kinds_of, (ArrayLike, optax.ScalarOrSchedule))]
NUMBERS = [*_ALONE, *(kinds | {type(None)} for kinds in _ALONE)]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_registry_holds_every_numeric_argument(entry: Entry) -> None:
    numeric = {
        parameter.name
        for parameter in inspect.signature(factory_of(entry)).parameters.values()
        if kinds_of(parameter.annotation) in NUMBERS
    }
    assert numeric <= entry.numbers.keys()


@pytest.mark.parametrize("factory", [gs.rules.log_mad], ids=named)
@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"clip_at": 4.0, "reject_at": 3.0}, "clip_at must be <= reject_at"),
        ({"min_spread": 0.5, "max_spread": 0.2}, "min_spread must be <= max_spread"),
    ],
)
def test_numbers_in_the_wrong_order_are_refused(
    factory: Callable[..., Any], numbers: dict[str, float], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        factory(**numbers)


@pytest.mark.parametrize("patience", [0, -1, np.nan, "many", None, True])
def test_bad_patience_is_refused(patience: Any) -> None:
    state = gs.guard(optax.sgd(0.1)).init(default_params())
    with pytest.raises((TypeError, ValueError), match="patience"):
        gs.check(state, patience=patience)


WRONG_KINDS = {
    "function as inner": (lambda: gs.guard(optax.adamw), "inner .* call it first, as in adamw"),  # pyright: ignore[reportArgumentType]
    "None as inner": (lambda: gs.guard(None), r"inner must be .*optax\.adamw\(3e-4\)"),  # pyright: ignore[reportArgumentType]
    "rate as inner": (lambda: gs.guard(3e-4), "inner must be .* got 0.0003 of type float"),  # pyright: ignore[reportArgumentType]
    "name as rule": (
        lambda: gs.guard(optax.sgd(0.1), "log_mad"),  # pyright: ignore[reportArgumentType]
        r"rule 0 must be .*gs\.rules\.log_mad\(\)",
    ),
    "function as rule": (
        lambda: gs.guard(optax.sgd(0.1), gs.rules.log_mad),  # pyright: ignore[reportArgumentType]
        r"rule 0 .* call it first, as in log_mad\(\.\.\.\)",
    ),
    "transform as second rule": (
        lambda: gs.guard(optax.sgd(0.1), gs.rules.log_mad(), optax.clip_by_global_norm(1.0)),  # pyright: ignore[reportArgumentType]
        "rule 1 must be",
    ),
    "list of rules": (lambda: gs.guard(optax.sgd(0.1), [gs.rules.log_mad()]), "rule 0 must be"),  # pyright: ignore[reportArgumentType]
    "function as rule of a clip": (
        lambda: gs.clipping.clip_by(gs.rules.log_mad),  # pyright: ignore[reportArgumentType]
        r"rule 0 .* call it first, as in log_mad\(\.\.\.\)",
    ),
    "name as rule of a recipe": (
        lambda: gs.adamw(1e-3, rules=("log_mad",)),  # pyright: ignore[reportArgumentType]
        "rule 0 must be",
    ),
}


@pytest.mark.parametrize("what", WRONG_KINDS)
def test_what_is_of_the_wrong_kind_is_refused_with_a_remedy(what: str) -> None:
    call, told = WRONG_KINDS[what]
    with pytest.raises(TypeError, match=told):
        call()


MISMATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "extra leaf": ({"more": jnp.ones(2)}, "['more']"),
    "other shape": ({"kernel": jnp.ones((4, 3))}, "['kernel']"),
    "leaf for a tree": ({"bias": {"inner": jnp.ones(4)}}, "['bias']"),
}


@pytest.mark.parametrize("what", [*MISMATCHES, "missing leaf"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_mismatched_tree_is_refused_by_path(case: Case, what: str) -> None:
    params = default_params()
    changed, path = MISMATCHES.get(what, ({}, "['scale']"))
    given = {**gradients(params), **changed}
    if what == "missing leaf":
        del given["scale"]
    state = case.tx.init(params)
    for update in (case.tx.update, jax.jit(case.tx.update)):
        with pytest.raises(ValueError, match=re.escape(path)) as raised:
            update(given, state, params)
        assert "params" in str(raised.value)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integer_leaf_is_refused_by_path_with_a_remedy(case: Case, dtype: str) -> None:
    params = default_params()
    given = {**gradients(params), "bias": jnp.ones(4, dtype)}
    with pytest.raises(TypeError, match=rf"updates\['bias'\] has dtype {dtype}.*optax\.masked"):
        case.tx.update(given, case.tx.init(params), params)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_state_of_another_transform_is_refused(case: Case) -> None:
    params = default_params()
    state = case.tx.init(params)
    wrongs = ((), optax.EmptyState(), optax.sgd(0.1, momentum=0.9).init(params), None)
    for wrong in (wrong for wrong in wrongs if type(wrong) is not type(state)):
        with pytest.raises(TypeError, match=r"the state passed to .* must come from .*\.init"):
            case.tx.update(gradients(params), wrong, params)


def test_state_of_the_inner_optimizer_is_refused_by_its_guard() -> None:
    params = default_params()
    tx = gs.guard(optax.adamw(1e-3))
    state: Any = tx.init(params)
    with pytest.raises(TypeError, match=r"guard\(\.\.\.\)\.init \(GuardState\), got tuple"):
        tx.update(gradients(params), state.inner_state, params)


def test_missing_params_are_told_and_cost_nothing() -> None:
    params = default_params()
    tx = gs.guard(optax.adamw(1e-3))
    state, given = tx.init(params), gradients(params)
    expected = tx.update(given, state, params)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(ValueError, match=r"params"):
            update(given, state)
    again = tx.update(given, state, params)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(expected), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("function", [gs.health, gs.explain, gs.check], ids=named)
@pytest.mark.parametrize("state", [(), None, optax.EmptyState(), {"a": jnp.ones(())}])
def test_state_without_a_guard_is_told(function: Callable[..., Any], state: object) -> None:
    with pytest.raises(ValueError, match=r"no guard found.*gradstable\.guard\("):
        function(state)
