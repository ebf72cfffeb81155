"""Every public transform keeps the contract, and the contract notices what breaks it."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradstable as gs
from gradstable._src.testing.contract import CHECKS, failure
from tests.broken import BROKEN, transform
from tests.frames import ONE_A_FRAME, WHOLE, representatives
from tests.registry import Case, cases, entries, others, public_names, resolve


def _all_but(*names: str) -> set[str]:
    return set(CHECKS) - set(names)


def test_every_public_name_is_registered_once() -> None:
    known = [*(entry.name for entry in entries()), *others()]
    assert sorted(public_names()) == sorted(known), "put new names into tests/registry/"


def test_names_of_cases_are_unique() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert {entry.tested_by for entry in entries()} - {""} <= set(names)


def test_every_transform_and_rule_is_tested() -> None:
    """A factory of transforms has a case; a rule has that of the transform made of it."""
    for entry in entries():
        function: Any = resolve(entry.name)
        made = str(inspect.signature(function).return_annotation)
        if "GradientTransformation" in made:
            assert entry.cases, entry.name
        elif "Rule" in made:
            assert entry.cases or entry.tested_by, entry.name


# These promises about company are kept by the frame that a transform is made by: all of them are
# tried in every run on one transform a frame, and on all others in a slow run. What donation asks
# for, buffers of its own and types that stay, `own_buffers` and `stable_state` ask of every one.
OF_THE_FRAME = {
    name
    for name, check in CHECKS.items()
    if check.__module__.rpartition(".")[2] in ("compose", "flax", "trees")
} - {"integer_leaves"} | {"one_trace", "cond", "scan", "donation", "last_cast", "name_scopes"}
# Of what is slow to compile, one transform of each kind is enough.
OF_A_KIND = {
    "derivative": {"accumulate", "cap_trust", "guard", "scale_by_adopt"},
    "debug_switches": {"cap_trust", "rollback"},
}


def contracts() -> Iterator[Any]:
    chosen = {case.name for case in representatives()}
    for entry in entries():
        for case in entry.cases:
            whole = case.name in chosen
            for name in CHECKS:
                slow = not whole and name in OF_THE_FRAME
                if name in OF_A_KIND:
                    slow = case is not entry.cases[0] or entry.short not in OF_A_KIND[name]
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(case, name, id=f"{name}-{case.name}", marks=marks)


FRAME = re.compile(
    r"return (optax\.GradientTransformationExtraArgs|ScaleAwareTransformation|wrapping)\("
)


def test_every_frame_is_tried_on_one_transform() -> None:
    package = Path(gs.__file__).parent / "_src"
    frames = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if FRAME.search(file.read_text(encoding="utf-8"))
    }
    ours = {frame for frame in frames if not frame.startswith("testing/")}
    assert ours - {"core/scale.py"} == ONE_A_FRAME.keys()
    assert {entry.short for entry in entries() if entry.cases} >= WHOLE


@pytest.mark.parametrize(("case", "name"), list(contracts()))
def test_contract(case: Case, name: str) -> None:
    broken = failure(CHECKS[name], case.tx)
    if name in case.breaks:
        assert broken is not None, f"{case.name} keeps {name} by now: take that out of the registry"
    elif broken is not None:
        raise broken


# Optimizers with unlike states: factored, sparse, nested, with conditions, keys and literals.
INNER = {
    "adafactor": optax.adafactor(1e-3),
    "adan": optax.adan(1e-3),
    "apply_if_finite": optax.apply_if_finite(optax.adam(1e-3), 3),
    "dog": optax.contrib.dog(1e-3),
    "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3),
    "lamb": optax.lamb(1e-3),
    "lion": optax.lion(1e-3),
    "mechanize": optax.contrib.mechanize(optax.adam(1e-3)),
    "muon": optax.contrib.muon(1e-3),
    "multi_steps": optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
    "optimistic": optax.optimistic_gradient_descent(1e-3),
    "prodigy": optax.contrib.prodigy(),
    "radam": optax.radam(1e-3),
    "rprop": optax.rprop(1e-3),
    "schedule_free": optax.contrib.schedule_free_adamw(1e-3),
    "snapshot": optax.chain(optax.snapshot("seen", lambda updates: updates), optax.sgd(0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INNER)
def test_guard_breaks_no_promise_that_its_inner_keeps(name: str) -> None:
    inner = INNER[name]
    kept = {check: run for check, run in CHECKS.items() if failure(run, inner) is None}
    broken = [error for run in kept.values() if (error := failure(run, gs.guard(inner)))]
    assert not broken, broken


@pytest.mark.parametrize("what", BROKEN)
def test_broken_transform_fails_the_checks_that_it_breaks(what: str) -> None:
    tx, expected = BROKEN[what]
    assert {name for name in expected if failure(CHECKS[name], tx)} == expected


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_broken_transform_keeps_the_checks_that_it_does_not_break(what: str) -> None:
    tx, expected = BROKEN[what]
    assert not {name for name in CHECKS.keys() - expected if failure(CHECKS[name], tx)}


def test_every_check_can_fail() -> None:
    assert set().union(*(expected for _, expected in BROKEN.values())) == set(CHECKS)


def test_failure_names_check_promise_leaf_and_difference() -> None:
    tx, expected = BROKEN["updates in float32"]
    with pytest.raises(AssertionError) as raised:
        gs.testing.assert_contract(tx, skip=_all_but("stable_state", "update_dtypes"))
    assert expected == {"update_dtypes"}
    for part in (
        "1 of 2 promises",
        "update_dtypes: Return updates in the dtypes of the gradients",
        "updates['kernel'] was bfloat16[3, 4], and is float32[3, 4]",
    ):
        assert part in str(raised.value)


def test_failure_is_caused_by_the_error_that_was_caught() -> None:
    tx, _ = BROKEN["stack of all leaves"]
    with pytest.raises(AssertionError, match="empty_tree") as raised:
        gs.testing.assert_contract(tx, skip=_all_but("empty_tree"))
    assert isinstance(raised.value.__cause__, ValueError)


def test_transforms_of_optax_pass_with_what_they_do_not_promise_skipped() -> None:
    skip = (
        "survives_any_gradient",
        "last_cast",
        "integer_leaves",
        "other_leaves",  # numbers of Python keep their weak type
        "state_dtypes",
    )
    gs.testing.assert_contract(optax.sgd(0.1, momentum=0.9), skip=skip)


def test_own_parameters_are_used() -> None:
    seen = []

    def note(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        seen.append(jax.tree.structure(params))
        return updates

    params = {"mine": jnp.ones((2, 2))}
    gs.testing.assert_contract(optax.stateless(note), params=params, skip=_all_but("stable_state"))
    assert seen
    assert set(seen) == {jax.tree.structure(params)}


def test_extra_args_reach_a_transform_that_needs_them() -> None:
    sound = transform()

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        assert extra_args["value"] == 2.0
        return sound.update(updates, state, params)

    tx = optax.GradientTransformationExtraArgs(sound.init, update)
    skip = _all_but("stable_state", "chain", "train_state")
    gs.testing.assert_contract(tx, skip=skip, extra_args={"value": 2.0})
    with pytest.raises(AssertionError, match="value"):
        gs.testing.assert_contract(tx, skip=skip)


def test_unknown_name_in_skip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown checks \['stable'\].*stable_state"):
        gs.testing.assert_contract(optax.identity(), skip=["stable"])


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(TypeError, match=re.escape("call it first, as in adamw(...)")):
        gs.testing.assert_contract(optax.adamw)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("package", "name"), [("chex", "one_trace"), ("flax", "flax_bytes")])
def test_missing_package_is_named_with_the_remedy(monkeypatch, package: str, name: str) -> None:
    found = importlib.import_module

    def not_found(wanted: str, *args: str) -> object:
        if wanted.partition(".")[0] == package:
            raise ModuleNotFoundError(wanted)
        return found(wanted, *args)

    monkeypatch.setattr(importlib, "import_module", not_found)
    with pytest.raises(ImportError, match=rf"{package}.*gradstable\[testing\]"):
        gs.testing.assert_contract(optax.identity(), skip=_all_but(name))
