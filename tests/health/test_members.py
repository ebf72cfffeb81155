"""States of several runs at once: every member is told of, and a dead one is named."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.health.members import Section, named, tell_all

PARAMS = {"a": jnp.ones(3), "b": jnp.ones(2)}
BAD = {**PARAMS, "b": jnp.full(2, jnp.nan)}


def stacked(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def after(tx: Any, *gradients: Any) -> Any:
    state = tx.init(PARAMS)
    for gradient in gradients:
        _, state = tx.update(gradient, state, PARAMS, value=1.0)
    return state


GUARD = gs.guard(optax.sgd(0.1))


@functools.cache
def sound() -> Any:
    return after(GUARD, PARAMS, PARAMS)


@functools.cache
def broken() -> Any:
    return after(GUARD, PARAMS, BAD)


@functools.cache
def seeds() -> Any:
    return stacked(*(broken() if seed == 3 else sound() for seed in range(8)))


def test_vmap_over_seeds_is_told_seed_by_seed() -> None:
    params = stacked(*[PARAMS] * 8)
    grads = {**params, "b": params["b"].at[3].set(jnp.nan)}

    @jax.jit
    @jax.vmap
    def run(good: Any, maybe_bad: Any) -> Any:
        _, state = GUARD.update(good, GUARD.init(good), good)
        return GUARD.update(maybe_bad, state, good)[1]

    state = run(params, grads)
    for told in (gs.explain(state, PARAMS), gs.explain(seeds(), PARAMS)):
        assert told.splitlines() == [
            "Members 0-2 and 4-7 of 8:",
            "2 steps: 2 accepted (0 of them clipped), 0 rejected.",
            "Member 3 of 8:",
            "2 steps: 1 accepted (0 of them clipped), 1 rejected.",
            "1 rejected because the gradient had NaN or infinite entries.",
            "The last rejection was at step 2: the gradient had NaN or infinite entries, first in "
            "['b'].",
        ]


def test_replicas_of_pmap_are_told_once() -> None:
    state = jax.pmap(lambda p: GUARD.update(BAD, GUARD.init(p), p)[1])(stacked(PARAMS))
    assert gs.explain(state, PARAMS) == gs.explain(after(GUARD, BAD), PARAMS)
    told = gs.explain(stacked(*[broken()] * 4), PARAMS)
    assert told == f"All 4 members:\n{gs.explain(broken(), PARAMS)}"


def test_check_names_the_dead_one_and_tells_of_it_alone() -> None:
    gs.check(seeds(), patience=2)
    with pytest.raises(gs.TrainingDiverged) as caught:
        gs.check(seeds(), PARAMS, patience=1)
    message = str(caught.value)
    assert message.startswith("training cannot continue: member 3 of 8: the last 1 steps were all")
    assert "Members 0-2" not in message
    assert "['b']" in message


def test_two_axes() -> None:
    state = stacked(stacked(sound(), sound(), sound()), stacked(sound(), sound(), broken()))
    assert "Member (1, 2) of (2, 3):" in gs.explain(state)
    with pytest.raises(gs.TrainingDiverged, match=r"member \(1, 2\) of \(2, 3\)"):
        gs.check(state, patience=1)


def test_all_dead() -> None:
    with pytest.raises(gs.TrainingDiverged, match="all 2 members: the last 1 steps"):
        gs.check(stacked(broken(), broken()), patience=1)


def test_every_wrapper_is_told_member_by_member() -> None:
    inner = gs.recovery.moment_hygiene(gs.backoff(gs.rollback(gs.guard(optax.adam(0.1)))))
    tx = gs.record(gs.loss_scale(gs.accumulate(inner, 1), init_scale=1.0))
    one, other = after(tx), after(tx, BAD)
    told = gs.explain(stacked(one, other), PARAMS)
    assert told == (
        f"Member 0 of 2:\n{gs.explain(one, PARAMS)}\nMember 1 of 2:\n{gs.explain(other, PARAMS)}"
    )
    assert "1 of 1 micro-batches was left out" in told


def test_a_rollback_that_stands_still_in_one_member_ends_the_run() -> None:
    state = gs.rollback(GUARD).init(PARAMS)
    still = state._replace(exhausted=jnp.asarray(True), in_vain=jnp.asarray(6, jnp.int32))
    gs.check(stacked(state, state))
    with pytest.raises(gs.TrainingDiverged, match="member 1 of 2: it diverged 6 times"):
        gs.check(stacked(state, still))


def test_health_is_a_number_for_each() -> None:
    np.testing.assert_array_equal(gs.health(seeds()).rejected, np.arange(8) == 3)


def test_of_many_stories_the_worst_are_told_and_the_rest_is_counted() -> None:
    numbers = (np.arange(100),)
    section = Section(numbers, lambda one: [f"no. {one[0]}"], lambda one: int(one[0] == 70))
    told = tell_all([section])
    assert "Member 70 of 100:" in told
    assert len(told) == 2 * 8 + 1
    assert told[-1].startswith("92 more members differ from these, and none of them is worse")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([0], "member 0 of 9"),
        ([0, 1], "members 0 and 1 of 9"),
        ([0, 1, 2], "members 0-2 of 9"),
        ([0, 2, 3, 4, 8], "members 0, 2-4 and 8 of 9"),
        (range(9), "all 9 members"),
    ],
)
def test_members_in_words(members: Any, text: str) -> None:
    assert named([(one,) for one in members], (9,)) == text
