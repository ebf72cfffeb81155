"""The engine under all estimators: dtypes, unsound entries, structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradstable._src.moments.engine import LeafRule, Slot, moments, under_guard


class SumState(NamedTuple):
    """State of an estimator that adds up gradients, and counts them a leaf."""

    count: jax.Array
    total: optax.Params
    seen: optax.Params


def add_up(**options: object) -> optax.GradientTransformationExtraArgs:
    def at(count: jax.Array) -> LeafRule:
        del count

        def learn(g: jax.Array, total: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
            return total + g, seen + 1.0

        return LeafRule(learn, lambda g, new, old: new[0])

    slots = (Slot("total", options.pop("dtype", None)), Slot("seen", per_leaf=True))
    return moments("add_up", SumState, slots, at, **options)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_computes_in_float32_and_answers_in_kind(dtype: jnp.dtype) -> None:
    tx = add_up()
    g = jnp.asarray([1e-3, 1.0], dtype)
    state = tx.init(g)
    for _ in range(3):
        updates, state = tx.update(g, state)
    assert updates.dtype == dtype
    assert state.total.dtype == jnp.float32
    np.testing.assert_allclose(state.total, 3.0 * np.asarray(g, np.float32), rtol=1e-6)
    assert (state.count, state.seen) == (3, 3.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_an_unsound_entry_counts_as_zero_and_leaves_its_statistics(bad: float) -> None:
    tx = add_up()
    g = jnp.asarray([1.0, 2.0])
    _, state = tx.update(g, tx.init(g))
    updates, state = tx.update(g.at[0].set(bad), state)
    np.testing.assert_array_equal(updates, [1.0, 4.0])
    np.testing.assert_array_equal(state.total, [1.0, 4.0])
    assert state.seen == 1.0, "one number for a leaf learns from whole leaves only"


def test_a_guarded_estimator_does_not_look() -> None:
    text = str(
        jax.make_jaxpr(under_guard(add_up()).update)(jnp.ones(2), add_up().init(jnp.ones(2)))
    )
    assert " le " not in text
    looking = str(jax.make_jaxpr(add_up().update)(jnp.ones(2), add_up().init(jnp.ones(2))))
    assert " le " in looking


def test_float16_statistics_saturate() -> None:
    tx = add_up(dtype=jnp.float16)
    g = jnp.full((2,), 6e4)
    state = tx.init(g)
    for _ in range(2):
        _, state = tx.update(g, state)
    np.testing.assert_array_equal(state.total, [65504.0, 65504.0])


def test_complex_gradients_are_refused_by_path_unless_the_rule_is_right_for_them() -> None:
    g = {"phase": jnp.ones(2, jnp.complex64)}
    with pytest.raises(TypeError, match=r"updates\['phase'\] has dtype complex64, but add_up"):
        add_up().update(g, add_up().init(g))
    updates, _ = add_up(complex_too=True).update(g, add_up(complex_too=True).init(g))
    assert updates["phase"].dtype == jnp.complex64
