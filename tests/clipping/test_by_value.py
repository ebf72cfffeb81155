"""The clip of single entries, against optax and against what optax lets pass."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs


def apply(limit: float, g: object) -> np.ndarray:
    tx = gs.clipping.clip_by_value(limit)
    leaf = jnp.asarray(g)
    return np.asarray(tx.update(leaf, tx.init(leaf))[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_equals_optax_and_numpy(limit: float, dtype: str) -> None:
    g = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), dtype)
    got = apply(limit, g)
    theirs, _ = optax.clip(limit).update(g, optax.EmptyState())
    assert got.dtype == g.dtype
    np.testing.assert_array_equal(got, theirs)
    np.testing.assert_array_equal(
        got.astype(np.float64), np.clip(np.asarray(g, np.float64), -limit, limit)
    )


def test_pitfall_nan_becomes_zero_and_infinite_the_limit() -> None:
    g = np.asarray([np.nan, np.inf, -np.inf, 3.4e38, 1e-42, -0.5], np.float32)
    got = apply(2.0, g)
    np.testing.assert_array_equal(got[[0, 1, 2, 3, 5]], [0.0, 2.0, -2.0, 2.0, -0.5])
    theirs: Any = optax.clip(2.0).update(jnp.asarray(g), optax.EmptyState())[0]
    assert np.isnan(theirs[0])


def test_a_far_limit_is_the_identity_and_clipping_again_changes_nothing() -> None:
    g = np.random.default_rng(1).normal(size=50).astype(np.float32)
    np.testing.assert_array_equal(apply(1e30, g), g)
    np.testing.assert_array_equal(apply(0.3, apply(0.3, g)), apply(0.3, g))


def test_weakness_the_direction_turns_and_the_norm_may_be_the_limit_times_root_n() -> None:
    np.testing.assert_array_equal(apply(1.0, [1e6, 1e3]), [1.0, 1.0])
    assert np.linalg.norm(apply(1.0, np.full(10_000, 1e6, np.float32))) == pytest.approx(100.0)
