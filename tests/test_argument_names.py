"""One name for one thing: the table of argument names in CONTRIBUTING, held to all public names."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optax
import pytest

from tests.registry import entries, public_names, resolve

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
TABLE = TEXT.split("## Argument names")[1].split("## ")[0]
NEVER = {
    name
    for row in re.findall(r"^\| .* \| .* \| (`.*`) \|$", TABLE, flags=re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row)
}


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in public_names():
        if inspect.isfunction(function := resolve(name)):
            yield name.rpartition(".")[2], function


def of_optax(name: str) -> set[str]:
    """Return the arguments of the function of optax that has this name."""
    for known in (name, name.removeprefix("scale_by_")):
        for room in (optax, optax.contrib):
            if callable(theirs := getattr(room, known, None)):
                return set(parameters(theirs))
    return set()


def test_the_table_is_read() -> None:
    assert {"threshold", "warmup", "rule", "state"} <= NEVER


def test_no_argument_has_a_name_that_the_table_rules_out() -> None:
    for name, function in functions():
        assert not (set(parameters(function)) & NEVER) - of_optax(name), name


def test_rules_and_states_stand_where_the_table_says() -> None:
    for name, function in functions():
        known = parameters(function)
        if "rules" in known:
            rules = known["rules"]
            several = rules.kind is rules.VAR_POSITIONAL
            assert several or (rules.kind is rules.KEYWORD_ONLY and rules.default == ()), name
        if "opt_state" in known:
            assert next(iter(known)) == "opt_state", name


ESTIMATORS = {
    entry.short.removeprefix("scale_by_"): resolve(entry.name)
    for entry in entries()
    if entry.short.startswith("scale_by_")
}


@pytest.mark.parametrize("entry", [one for one in entries() if one.family == "Recipes"])
def test_an_optimizer_takes_what_its_estimator_takes(entry: Any) -> None:
    """Under the name of the estimator, with its default unless optax has another one."""
    made, estimator = parameters(resolve(entry.name)), ESTIMATORS.get(entry.short)
    if {"b1", "b2"} <= made.keys() and entry.short not in WITHOUT_MOMENTS:
        assert {"mu_dtype"} <= made.keys()
    if estimator is None:
        return
    for name, parameter in parameters(estimator).items():
        if name in made and (entry.short, name) not in CHOSEN and name != "axis_name":
            assert made[name].default == parameter.default or name in of_optax(entry.short), name


# What the recipe chooses, and the estimator leaves open.
CHOSEN = {("muon", "scale"), ("nadam", "momentum_decay")}
# A second moment and an average of iterates; LAMB as optax has it; a format of its own.
WITHOUT_MOMENTS = {"schedule_free_adamw", "lamb", "adamw_8bit"}
