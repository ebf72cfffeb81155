"""Clippy against its oracle, its bound, and what is known against it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from tests.oracles.clippy import clippy as oracle

SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}


def tree(seed: int, size: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.normal(size=shape) * size).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def apply(updates: Any, params: Any, **options: Any) -> Any:
    tx = gs.clipping.clip_by_clippy(**options)
    updates, params = jax.tree.map(jnp.asarray, (updates, params))
    return tx.update(updates, tx.init(params), params)[0]


@pytest.mark.parametrize(
    "options", [{}, {"relative": 0.5, "absolute": 1e-2}, {"relative": 0.0, "absolute": 0.1}]
)
def test_equals_the_float64_oracle(options: dict[str, float]) -> None:
    updates, params = tree(0, 0.5), tree(1, 1.0)
    updates["vector"][2] = 0.0
    got = apply(updates, params, **options)
    for name in SHAPES:
        want = oracle(updates[name], params[name], **options)
        np.testing.assert_allclose(got[name], want, rtol=1e-5)


@jax.jit
def _clip(updates: Any, params: Any) -> Any:
    return gs.clipping.clip_by_clippy().update(updates, optax.EmptyState(), params)[0]


@given(st.integers(0, 99), st.integers(-60, 100))
def test_no_weight_changes_by_more_than_its_share(seed: int, power: int) -> None:
    updates, params = tree(seed, 2.0**power), tree(seed + 1, 1.0)
    got = _clip(updates, params)
    for name in SHAPES:
        limit = 0.1 * np.abs(params[name]) + 1e-7
        assert (np.abs(got[name]) <= limit * (1 + 1e-6)).all()
    # What is within the limit stays as it is, to the bit.
    jax.tree.map(
        np.testing.assert_array_equal, _clip(got, params), _clip(_clip(got, params), params)
    )


def test_small_updates_are_left_alone() -> None:
    updates, params = tree(0, 1e-4), jax.tree.map(lambda p: np.abs(p) + 0.1, tree(1, 1.0))
    jax.tree.map(np.testing.assert_array_equal, apply(updates, params), updates)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
def test_pitfall_a_broken_entry_stops_its_leaf_alone(bad: float) -> None:
    updates, params = tree(0, 1e-4), jax.tree.map(lambda p: np.abs(p) + 0.1, tree(1, 1.0))
    updates["matrix"][1, 1] = bad
    got = apply(updates, params)
    assert np.isfinite(got["matrix"]).all()
    if not np.isfinite(bad):
        np.testing.assert_array_equal(got["matrix"], 0.0)
    np.testing.assert_array_equal(got["vector"], updates["vector"])


def test_pitfall_nothing_by_nothing_is_nothing() -> None:
    """A zero update at a zero weight with no absolute limit is 0 / 0."""
    updates, params = np.asarray([0.0, 1e-3], np.float32), np.asarray([0.0, 1.0], np.float32)
    np.testing.assert_array_equal(apply(updates, params, absolute=0.0), updates)
    np.testing.assert_array_equal(apply(updates[::-1], params, absolute=0.0), 0.0)


def test_weakness_the_smallest_weight_holds_its_leaf() -> None:
    weights = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32) * 0.02
    updates = np.full((256, 256), 1e-3, np.float32)
    assert float(apply(updates, weights)[0, 0] / 1e-3) == pytest.approx(1.4e-4, abs=1e-5)
    weights[3, 3] = 0.0
    np.testing.assert_allclose(apply(updates, weights), 1e-7, rtol=1e-4)


def test_weakness_a_bias_at_zero_needs_98_steps_to_get_free() -> None:
    tx = gs.clipping.clip_by_clippy()

    def step(bias: Any, _: None) -> tuple[Any, Any]:
        updates, _state = tx.update(jnp.full(4, 1e-3), tx.init(bias), bias)
        return bias + updates, updates[0]

    _, moved = jax.jit(lambda p: jax.lax.scan(step, p, None, length=150))(jnp.zeros(4))
    assert int(np.argmax(np.asarray(moved) > 0.999e-3)) + 1 == pytest.approx(98, abs=1)


def test_layers_of_a_stack_are_scaled_alone() -> None:
    updates, params = np.full((3, 2, 2), 1e-3, np.float32), np.ones((3, 2, 2), np.float32)
    updates[1] = 1e3
    got = apply({"w": updates}, {"w": params}, units="layer")["w"]
    got = np.asarray(got)
    np.testing.assert_array_equal(got[[0, 2]], updates[[0, 2]])
    np.testing.assert_allclose(got[1], 0.1, rtol=1e-5)


def test_low_precision_is_rounded_from_the_right_value() -> None:
    updates, params = tree(0, 0.5), tree(1, 1.0)
    got = apply(jax.tree.map(lambda u: u.astype(jnp.bfloat16), updates), params)
    for name in SHAPES:
        assert got[name].dtype == jnp.bfloat16
        given_ = updates[name].astype(jnp.bfloat16)
        want = oracle(given_.astype(np.float32), params[name])
        np.testing.assert_allclose(np.asarray(got[name]).astype(np.float64), want, rtol=4e-3)


def test_missing_params_are_told() -> None:
    tx = gs.clipping.clip_by_clippy()
    with pytest.raises(ValueError, match=r"clip_by_clippy compares .* needs them"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="units must be one of"):
        gs.clipping.clip_by_clippy(units="row")
