"""Soft clips are the published curves, within their bounds, for any float."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from gradstable._src.core.compress import CURVES
from tests.oracles.compressors import soft_clip as oracle

KINDS = tuple(CURVES)
BOUNDS = {"tanh": 1.0, "softsign": 2.0, "mu_law": 19.3, "trust_region": 2.0}
SLOPES = {"tanh": 1.0, "softsign": 2.0, "mu_law": 26.2, "trust_region": 1.0}
WIDE = np.concatenate([[0.0], np.logspace(-30, 38, 69), -np.logspace(-30, 38, 69)])


def clipped(tx: optax.GradientTransformation, g: Any) -> Any:
    return jax.tree.map(np.asarray, jax.jit(lambda g: tx.update(g, tx.init(g))[0])(g))


@pytest.mark.parametrize("scale", [1.0, 0.01, 30.0])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_float64_oracle(kind: str, scale: float) -> None:
    rng = np.random.default_rng(0)
    g = np.concatenate(
        [
            WIDE[(np.abs(WIDE) > 1e-28) & (np.abs(WIDE) < 3e38 * min(1.0, scale))],
            rng.normal(size=100) * 3,
        ]
    ).astype(np.float32)
    expected = [oracle(float(x), kind, scale) for x in g]
    np.testing.assert_allclose(
        clipped(gs.clipping.soft_clip(kind, scale=scale), g), expected, rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_low_precision_is_that_of_its_dtype(kind: str, dtype: str, tolerance: float) -> None:
    g = np.random.default_rng(1).normal(size=200).astype(jnp.dtype(dtype))
    expected = [oracle(float(x), kind) for x in g]
    got = clipped(gs.clipping.soft_clip(kind), g)
    assert got.dtype == g.dtype
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_bound_and_slope_are_as_stated(kind: str) -> None:
    g = np.asarray([1e-6, 3.4e38, -3.4e38, 1e20], np.float32)
    got = clipped(gs.clipping.soft_clip(kind), g)
    assert np.abs(got).max() <= BOUNDS[kind]
    assert np.abs(got).max() >= BOUNDS[kind] * 0.99
    assert got[0] / 1e-6 == pytest.approx(SLOPES[kind], rel=2e-3)
    assert (got[1], got[3]) == (-got[2], pytest.approx(got[1], rel=0.5))


@pytest.mark.parametrize("kind", ["tanh", "trust_region"])
def test_infinite_scale_is_the_identity(kind: str) -> None:
    g = np.random.default_rng(2).normal(size=50).astype(np.float32)
    np.testing.assert_allclose(clipped(gs.clipping.soft_clip(kind, scale=1e6), g), g, rtol=1e-5)


_JITTED = {kind: jax.jit(lambda g, kind=kind: CURVES[kind](g)) for kind in KINDS}


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=8, max_size=8))
def test_curves_are_odd_and_increasing(values: list[float]) -> None:
    g = np.sort(np.asarray(values, np.float32))
    for curve in _JITTED.values():
        got = np.asarray(curve(g))
        np.testing.assert_array_equal(np.asarray(curve(-g)), -got)
        assert (np.diff(got) >= -1e-6 * np.abs(got[1:])).all()


def test_each_entry_for_itself_and_none_that_is_not_finite() -> None:
    g = {"a": jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.5]), "b": jnp.asarray(0.5)}
    for kind in KINDS:
        updates = clipped(gs.clipping.soft_clip(kind), g)
        assert updates["a"][:3].tolist() == [0.0, 0.0, 0.0]
        assert updates["a"][3] == updates["b"] > 0.4


def test_pitfall_large_entries_do_not_overflow_inside() -> None:
    """127 * 3e38 is infinite, and so is 2 * 3e38, of which heavyball's softsign makes inf."""
    largest = np.full(2, np.finfo(np.float32).max)
    for kind in KINDS:
        for scale in (1e-30, 1.0, 1e30):
            assert np.isfinite(clipped(gs.clipping.soft_clip(kind, scale=scale), largest)).all()
            assert (clipped(gs.clipping.soft_clip(kind, scale=scale), largest) > 0.9 * scale).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .*'mu_law'.* got 'relu'"):
        gs.clipping.soft_clip("relu")
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match="scale must be a number > 0"):
            gs.clipping.soft_clip("tanh", scale=scale)
