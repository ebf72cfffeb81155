"""Factors for tree, leaves and units: how they combine, apply and are reported."""

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

import gradstable as gs
from gradstable._src.core.act import scale_updates
from gradstable._src.core.scale import combine, largest_norm, per_leaf

GRADIENT = {"a": jnp.asarray([[3.0, 4.0], [0.0, 2.0]]), "b": jnp.asarray([1.0, 2.0])}
ROWS = (jnp.asarray([[0.5, 1.0]]), jnp.ones((1,)))
factors = st.floats(0.125, 8.0, width=32)


def rule_of(scale: Any, threshold: float = np.inf) -> gs.rules.Rule:
    """Return a rule that always has the same factors."""

    def decide(measure: gs.Measure, state: Any, **_: Any) -> tuple[gs.Verdict, Any]:
        verdict = gs.Verdict.of(scale=scale, reason=gs.rules.Reason.BLOCK_CLIPPED)
        return verdict._replace(threshold=jnp.asarray(threshold, jnp.float32)), state

    return gs.rules.Rule(init=lambda params: (), decide=decide)


@given(factors, factors)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_two_clips_combine_to_the_stricter_and_two_gains_to_their_product(
    first: float, second: float
) -> None:
    one, other = jnp.float32(first), jnp.float32(second)
    both = float(combine(one, other))
    assert both == float(combine(other, one))
    if max(first, second) <= 1.0:
        assert both == min(first, second)
    else:
        np.testing.assert_allclose(both, first * second, rtol=1e-6)


def test_factors_of_tree_leaves_and_units_combine_for_each_entry() -> None:
    scalar, leaves = jnp.float32(0.8), jnp.asarray([0.9, 0.25])
    np.testing.assert_allclose(combine(scalar, leaves), [0.8, 0.25])
    units = combine(combine(scalar, ROWS), leaves)
    assert isinstance(units, tuple)
    np.testing.assert_allclose(units[0], [[0.5, 0.8]])
    np.testing.assert_allclose(units[1], [0.25])


@pytest.mark.parametrize(
    "scale", [0.5, jnp.asarray([0.5, 0.25]), ROWS], ids=["tree", "leaf", "unit"]
)
def test_factors_reach_their_entries(scale: Any) -> None:
    scale = gs.Verdict.of(scale=scale).scale
    got = scale_updates(GRADIENT, scale)
    for leaf, factor, expected in zip(
        got.values(), per_leaf(scale, 2), GRADIENT.values(), strict=True
    ):
        np.testing.assert_array_equal(leaf, np.asarray(expected) * np.asarray(factor))


def test_a_factor_of_one_keeps_every_bit() -> None:
    subnormal = jnp.asarray([1e-40, -0.0], jnp.float32)
    got = scale_updates([subnormal], (jnp.ones((1,)),))
    assert np.asarray(got[0]).tobytes() == np.asarray(subnormal).tobytes()


def test_health_tells_the_least_factor() -> None:
    tx = gs.guard(optax.sgd(1.0), rule_of((jnp.asarray([[0.5, 1.0]]), jnp.ones((1,)))))
    updates, state = tx.update(GRADIENT, tx.init(GRADIENT))
    np.testing.assert_array_equal(updates["a"], [[-1.5, -4.0], [-0.0, -2.0]])
    health = gs.health(state)
    assert (health.scale, health.clipped, health.accepted) == (0.5, 1, 1)
    assert "1 clipped because the gradient of a leaf was above its limit" in gs.explain(state)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_factor_that_cannot_be_applied_rejects_the_step(bad: float) -> None:
    for scale in (bad, jnp.asarray([1.0, bad]), (jnp.asarray([[1.0, bad]]), jnp.ones((1,)))):
        tx = gs.guard(optax.sgd(1.0), rule_of(scale))
        updates, state = tx.update(GRADIENT, tx.init(GRADIENT))
        assert not any(np.asarray(leaf).any() for leaf in updates.values())
        assert gs.health(state).reason == gs.rules.Reason.OVERFLOW


def test_a_gain_that_overflows_rejects_the_step() -> None:
    large = jax.tree.map(lambda leaf: leaf * 1e15, GRADIENT)
    tx = gs.guard(optax.sgd(1.0), rule_of(jnp.asarray([1.0, 1e6])))
    _, state = tx.update(large, tx.init(large))
    assert gs.health(state).reason == gs.rules.Reason.OVERFLOW


def test_largest_norm_after_scaling() -> None:
    measure = gs.Measure.of([3.0, 4.0])
    assert largest_norm(measure, jnp.float32(0.5)) == 2.5
    assert largest_norm(measure, jnp.asarray([1.0, 0.5])) == 3.0
    assert largest_norm(measure, (jnp.asarray([0.1, 0.5]), jnp.asarray([0.25]))) == 1.5


def test_empty_tree_has_the_factor_one() -> None:
    verdict = gs.Verdict.of(scale=())
    assert verdict.least_scale == 1.0
    assert not verdict.clipped
