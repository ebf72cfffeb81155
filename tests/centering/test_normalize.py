"""Normalized gradients keep their direction, whatever their size."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles.centering import normalize_row


def normalized(g: Any, **options: Any) -> Any:
    return _jitted(**options)(g)


@functools.lru_cache
def _jitted(**options: Any) -> Callable[[Any], Any]:
    tx = gs.centering.normalize(**options)
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])


def tree(factor: float = 1.0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "bias": jnp.asarray(rng.normal(size=4) * factor, jnp.float32),
        "kernel": jnp.asarray(rng.normal(size=(3, 4)) * factor, jnp.float32),
    }


@pytest.mark.parametrize("options", [{}, {"scale": 3.0, "eps": 0.1}])
def test_equals_optax_and_the_oracle(options: dict[str, float]) -> None:
    g = tree()
    theirs = optax.normalize_by_update_norm(options.get("scale", 1.0), options.get("eps", 1e-6))
    expected, _ = theirs.update(g, theirs.init(g))
    got = normalized(g, **options)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), got, expected)
    flat = [float(x) for leaf in jax.tree.leaves(g) for x in leaf.ravel()]
    oracle = normalize_row(flat, **options)
    mine = [float(x) for leaf in jax.tree.leaves(got) for x in leaf.ravel()]
    np.testing.assert_allclose(mine, oracle, rtol=1e-5)


def test_direction_is_kept_from_1e_30_to_1e38() -> None:
    expected = normalized(tree(), eps=0.0)
    for factor in (1e-36, 1e-20, 1e20, 1e37):
        got = normalized(tree(factor), eps=0.0)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), got, expected
        )


def test_pitfall_optax_zeroes_what_overflows_when_squared() -> None:
    theirs = optax.normalize_by_update_norm()
    for g in (jnp.asarray([3e20, 4e20]), jnp.asarray([300.0, 400.0], jnp.float16)):
        assert not theirs.update(g, theirs.init(g))[0].any()
        np.testing.assert_allclose(normalized(g), [0.6, 0.8], rtol=1e-3)


def test_one_broken_entry_zeroes_all_that_shares_its_norm() -> None:
    g = tree()
    g["bias"] = g["bias"].at[1].set(jnp.nan)
    assert not any(leaf.any() for leaf in jax.tree.leaves(normalized(g)))
    by_leaf = normalized(g, units="leaf")
    assert not by_leaf["bias"].any()
    np.testing.assert_allclose(np.linalg.norm(by_leaf["kernel"]), 1.0, rtol=1e-5)


def test_zero_stays_zero() -> None:
    for units in (None, "leaf", "flax"):
        got = normalized({"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}, units=units, eps=0.0)
        assert not any(leaf.any() for leaf in jax.tree.leaves(got))


def test_a_norm_beyond_float32_gives_zero_and_a_leaf_by_itself_its_direction() -> None:
    largest = jnp.full((16,), 3.4e38)
    assert not normalized(largest).any()
    np.testing.assert_allclose(normalized(largest, units="leaf"), 0.25, rtol=1e-5)


def test_a_scale_that_a_dtype_cannot_hold_becomes_its_largest() -> None:
    g = jnp.asarray([1.0, 0.0], jnp.float16)
    for units in (None, "leaf"):
        assert normalized(g, units=units, scale=1e6).tolist() == [65_504.0, 0.0]


def test_errors() -> None:
    for name, value in (("scale", 0.0), ("scale", -1.0), ("eps", -1e-3), ("eps", float("nan"))):
        with pytest.raises(ValueError, match=rf"{name} must be"):
            gs.centering.normalize(**{name: value})
