"""Every public transform and rule prints as the call that made it, and that can be called again."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from tests.registry import Entry, entries, resolve
from tests.registry.entry import is_matrix

NAMES = {**vars(gs), "jnp": jnp, "optax": optax, "is_matrix": is_matrix}


def factory_of(entry: Entry) -> Callable[..., Any]:
    return resolve(entry.name)


def makes_something_shown(entry: Entry) -> bool:
    made = str(inspect.signature(factory_of(entry)).return_annotation)
    return "GradientTransformation" in made or "Rule" in made


# ``protect`` prints as the calls that it makes: see ``tests/recipes/test_protect.py``.
MAKERS = [entry for entry in entries() if makes_something_shown(entry) and entry.name != "protect"]
# What wraps or combines others gets some, where the tests of errors give it nothing.
WRAPPED: dict[str, Any] = {"inner": gs.moments.scale_by_adam(), "rules": [gs.rules.log_mad()]}


def arguments_of(entry: Entry) -> dict[str, Any]:
    needed = {
        parameter.name
        for parameter in inspect.signature(factory_of(entry)).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    }
    return {**{name: WRAPPED[name] for name in needed - entry.required.keys()}, **entry.required}


def default_of(entry: Entry) -> Any:
    return factory_of(entry)(**arguments_of(entry))


def literals() -> Iterator[Any]:
    """Yield what prints without anything cut short, from the defaults and from all cases."""
    for entry in MAKERS:
        made = {repr(each): each for each in (default_of(entry), *(c.tx for c in entry.cases))}
        for text in made:
            if "..." not in text and "<" not in text:
                yield pytest.param(text, id=text)


@pytest.mark.parametrize("entry", MAKERS, ids=lambda entry: entry.name)
def test_repr_begins_with_the_public_name(entry: Entry) -> None:
    name = repr(default_of(entry)).partition("(")[0]
    assert resolve(name) is factory_of(entry)


@pytest.mark.parametrize("entry", MAKERS, ids=lambda entry: entry.name)
def test_repr_names_what_was_given_and_nothing_else(entry: Entry) -> None:
    given = [f"{name}=" for name in arguments_of(entry)]
    # Calls within the call, such as an inner transform, are theirs to show.
    own = re.sub(r"\([^()]*\)", "", repr(default_of(entry)).partition("(")[2][:-1])
    assert re.findall(r"\w+=", own) == given


@pytest.mark.parametrize("text", list(literals()))
def test_repr_evaluates_to_an_equal_repr(text: str) -> None:
    again = eval(text, dict(NAMES))
    assert repr(again) == text


def test_every_rule_and_most_transforms_are_evaluated() -> None:
    evaluated = {param.values[0].partition("(")[0] for param in literals()}
    assert {entry.name for entry in MAKERS if entry.name.startswith("rules.")} <= evaluated
    assert len(evaluated) > 0.9 * len(MAKERS)


def test_guard_with_rules_evaluates_to_itself() -> None:
    text = "guard(moments.ema(0.95), rules.global_norm(1.0), rules.log_mad(), units='leaf')"
    assert repr(eval(text, dict(NAMES))) == text
