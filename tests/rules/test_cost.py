"""No rule costs a pass over the gradients of its own, by XLA's count of words moved."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from benchmarks.counting import count_common_path
from tests.registry import entries

TREE = {f"w{i}": jax.ShapeDtypeStruct((256, 512), jnp.float32) for i in range(2)}
# What rules for units may cost more: one word to read gradients, one to read parameters, and the
# norms of the units, which are a few percent of leaves as small as these.
UNITS = {"unit_norm": 2.05}
# all_of takes rules; it is counted below, as guard puts it around every rule.
RULES = sorted(
    entry.name.removeprefix("rules.")
    for entry in entries()
    if entry.name.startswith("rules.") and entry.name != "rules.all_of"
)
REQUIRED = {entry.name: dict(entry.required) for entry in entries()}


def words(*rules: gs.rules.Rule) -> float:
    """Return the words per parameter of a step whose loss is given as well."""
    tx = gs.guard(optax.adamw(1e-3), *rules)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return tx.update(updates, state, params, **{"value": 1.0, **extra_args})

    return count_common_path(optax.GradientTransformationExtraArgs(tx.init, update), TREE).words


@functools.cache
def words_of_one_fixed_limit() -> float:
    return words(gs.rules.global_norm(1.0))


def make(name: str) -> gs.rules.Rule:
    return getattr(gs.rules, name)(**REQUIRED[f"rules.{name}"])


def test_every_rule_is_counted() -> None:
    made = {
        name
        for name in gs.rules.__all__
        if inspect.isfunction(rule := getattr(gs.rules, name))
        and "Rule" in str(inspect.signature(rule).return_annotation)
    }
    assert made == {*RULES, "all_of"}


@pytest.mark.parametrize("name", RULES)
def test_rule_adds_no_pass_over_the_gradients(name: str) -> None:
    more = words(make(name)) - words_of_one_fixed_limit()
    assert more <= UNITS.get(name, 0.0) + 0.1


def test_all_rules_on_whole_leaves_cost_what_one_costs() -> None:
    whole = [make(name) for name in RULES if name not in UNITS]
    assert words(*whole) - words_of_one_fixed_limit() <= 0.2
