"""Every registered transform in the storm: finite when alone, exact when guarded."""

import itertools
import re
from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.order import may_be_around
from tests.frames import representatives
from tests.registry import Case, cases, entries, resolve
from tests.storm.test_perfect_storm import (
    assert_survived,
    member,
    non_finite_leaves,
    raw_keys,
    stack,
)
from tests.storm.weather import calm, params_of, storms

EVERY = cases()
# What has a guard of its own is exact by itself.
OPEN = [case for case in EVERY if not isinstance(case.tx.init({}), gs.GuardState)]
EXACT = [case for case in EVERY if case not in OPEN]


def _some(these: list[Case], chosen: set[str]) -> list[Any]:
    """Return cases as parameters; those that are not chosen are slow.

    How the guard holds a state is a matter of the state's layout. What is chosen has all layouts of
    ours, and the optimizers of test_perfect_storm.py have 28 more.
    """
    return [
        pytest.param(case, id=case.name, marks=[] if case.name in chosen else pytest.mark.slow)
        for case in these
    ]


def _one_a_file(these: list[Case]) -> set[str]:
    """Return the name of the first case of every file."""
    wanted = {case.name for case in these}
    first: dict[str, str] = {}
    for entry in entries():
        for case in entry.cases:
            if case.name in wanted:
                first.setdefault(resolve(entry.name).__module__, case.name)
    return set(first.values())


def trail_of(tx: optax.GradientTransformation, *, move: bool) -> list[Any]:
    """Return parameters and state before, and after each step of a storm with calm between.

    Parameters stay where they are unless ``move``: a transform alone has no learning rate.
    """
    params = params_of("mixed")
    start = params, tx.init(params)
    sequence = []
    for index, (_, gradient) in enumerate(storms("mixed")):
        sequence += [calm(index, "mixed"), gradient]

    def body(carry: Any, gradient: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        moved = optax.apply_updates(params, updates)
        return (moved if move else params, state), raw_keys((moved, state))

    _, trail = jax.jit(lambda c, g: jax.lax.scan(body, c, g))(start, stack(sequence))
    trail = jax.device_get(trail)
    before = jax.device_get(raw_keys(start))
    return [before, *(member(trail, index) for index in range(len(sequence)))]


@pytest.mark.parametrize("case", OPEN, ids=lambda case: case.name)
def test_alone(case: Case) -> None:
    """Every fault in turn; no entry of parameters or state is ever broken."""
    trail = trail_of(case.tx, move=False)
    for step, (before, after) in enumerate(itertools.pairwise(trail)):
        broken = _reported_apart(non_finite_leaves(before, after))
        assert not broken, f"step {step}: not finite any more: {broken}"


def _reported_apart(paths: list[str]) -> list[str]:
    """Leave out what only reports a number as it was seen."""
    # The record of a guard, also in a copy, where fields have no names.
    reports = re.compile(r"\.(grad_norm|norm_limit|rows)$|\.kept_state\.unnamed\[0\]\[\d+\]")
    return [path for path in paths if not reports.search(path)]


# A loss scale hears of overflows through a guard around it too: it could never fall otherwise. And
# what must not be inside a guard is refused.
HELD = [
    case
    for case in OPEN
    if case.name != "loss_scale(adamw)" and may_be_around("guard", case.tx.init({}))
]


@pytest.mark.parametrize("case", _some(HELD, {case.name for case in representatives()}))
def test_guarded(case: Case) -> None:
    """A rejected step changes no bit of parameters and state, an accepted one breaks none."""
    trail = trail_of(gs.guard(optax.chain(case.tx, optax.scale(-1e-3))), move=True)
    for step, (before, after) in enumerate(itertools.pairwise(trail)):
        assert_survived(f"step {step}", before, after)
    rejected = [after[1].ledger.grad_factor == 0 for after in trail[2::2]]
    finite = [
        all(np.isfinite(leaf.astype(np.float32)).all() for leaf in gradient.values())
        for _, gradient in storms("mixed")
    ]
    assert np.asarray(rejected)[~np.asarray(finite)].all()
    assert trail[-2][1].ledger.consecutive_rejected == 0


@pytest.mark.parametrize("case", _some(EXACT, _one_a_file(EXACT)))
def test_recipes_are_exact(case: Case) -> None:
    trail = trail_of(case.tx, move=True)
    for step, (before, after) in enumerate(itertools.pairwise(trail)):
        assert_survived(f"step {step}", before, after)
