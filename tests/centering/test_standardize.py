"""The standard score of every unit."""

import jax
import numpy as np
import pytest

import gradstable as gs


def scores(g: object, **options: float) -> np.ndarray:
    tx = gs.centering.standardize(**options)
    return np.asarray(jax.jit(lambda g: tx.update(g, tx.init(g))[0])(g))


def test_mean_zero_and_deviation_one() -> None:
    rng = np.random.default_rng(0)
    g = rng.normal(size=(200, 3)) * [1e-4, 1.0, 1e20] + [1.0, -5.0, 1e21]
    got = scores(g.astype(np.float32))
    np.testing.assert_allclose(got.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(got.std(axis=0), 1.0, rtol=1e-3)


def test_is_idempotent() -> None:
    once = scores(np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32))
    np.testing.assert_allclose(scores(once), once, atol=1e-5)


@pytest.mark.parametrize("n", [3, 40, 1000])
def test_no_entry_is_beyond_the_root_of_their_number(n: int) -> None:
    g = np.zeros(n, np.float32)
    g[0] = 1e20
    got = scores(g)
    assert np.abs(got).max() == pytest.approx((n - 1) ** 0.5, rel=1e-5)


def test_pitfall_dividing_alone_blows_up_a_constant_gradient() -> None:
    """``g / (std(g) + 1e-8)`` makes 1e8 of ones, and 48 of the deviations of 611 ± 12.7."""
    ones = np.ones(100, np.float32)
    assert (ones / (ones.std(ddof=1) + np.float32(1e-8))).max() == pytest.approx(1e8)
    assert not scores(ones).any()


def test_a_large_mean_does_not_hide_a_small_spread() -> None:
    """E[x^2] - E[x]^2 in float32 has lost the variance here: 16 beside 1e10."""
    g = (1e5 + 4.0 * np.random.default_rng(2).normal(size=1000)).astype(np.float32)
    exact = g.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(scores(g), expected, atol=5e-3)


def test_eps_is_in_units_of_the_gradient() -> None:
    g = np.asarray([-3e-3, 0.0, 3e-3], np.float32)
    std = 3e-3 * (2 / 3) ** 0.5
    np.testing.assert_allclose(scores(g, eps=std), g / (2 * std), rtol=1e-5)
