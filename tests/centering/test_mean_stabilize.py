"""The three steps: the mean goes, what is left is adjusted, an estimator follows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from benchmarks.counting import count_common_path
from tests.centering.running import apply

CURVES = ("tanh", "softsign", "mu_law", "trust_region")


def stabilized(g: Any, adjust: str = "none", **options: Any) -> np.ndarray:
    return np.asarray(_jitted(adjust, **options)(g), np.float64)


@functools.lru_cache
def _jitted(adjust: str, **options: Any) -> Callable[[Any], Any]:
    tx = gs.centering.mean_stabilize(adjust, **options)
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])


def normal(mean: float, std: float, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, std, n).astype(np.float32)


def test_none_is_the_default_and_centralization_of_vectors_too() -> None:
    g = normal(611.461, 12.6965)
    np.testing.assert_array_equal(apply(gs.centering.mean_stabilize(), g), stabilized(g, "none"))
    kernel = g.reshape(100, 10)
    np.testing.assert_array_equal(stabilized(kernel), apply(gs.centering.centralize(), kernel))


def test_norm_is_standardization() -> None:
    g = normal(3.0, 0.5).reshape(100, 10)
    np.testing.assert_array_equal(stabilized(g, "norm"), apply(gs.centering.standardize(), g))


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0])
def test_snr_is_the_share_of_the_differences_in_the_power(offset: float) -> None:
    g = normal(offset, 1.0)
    exact = g.astype(np.float64)
    gain = exact.var() / np.mean(exact**2)
    np.testing.assert_allclose(stabilized(g, "snr"), gain * (exact - exact.mean()), atol=1e-4)
    assert gain == pytest.approx(1.0 / (1.0 + offset**2), rel=0.15)


def test_snr_is_bounded_where_a_ratio_of_mean_and_deviation_is_not() -> None:
    for g in (normal(0.0, 1.0), normal(1e6, 1.0), normal(0.0, 1e20), normal(1e20, 1e20)):
        assert np.abs(stabilized(g, "snr")).max() <= np.abs(stabilized(g)).max()


@pytest.mark.parametrize(
    ("adjust", "largest", "bound"),
    [
        ("norm", 31.607, 999**0.5 * 1.00001),
        ("tanh", 1.0, 1.0),
        ("softsign", 1.9387, 2.0),
        ("mu_law", 1.7102, np.log1p(127 * 999**0.5) / np.log(128) * 1.00001),
        ("trust_region", 1.8141, 2.0),
    ],
)
def test_bounds_are_as_stated(adjust: str, largest: float, bound: float) -> None:
    """One entry that explodes among a thousand is the worst case: sqrt(999) deviations."""
    g = normal(0.0, 1.0)
    g[500] = -1e30
    got = np.abs(stabilized(g, adjust)).max()
    assert got == pytest.approx(largest, rel=1e-4)
    assert got <= bound


def test_weakness_one_exploding_entry_makes_the_others_small() -> None:
    """Where there is one outlier in n, the deviation is that of the outlier."""
    g = normal(0.0, 1.0)
    healthy = np.abs(stabilized(g, "tanh")).mean()
    g[500] = 1e4
    left = np.abs(np.delete(stabilized(g, "tanh"), 500)).mean() / healthy
    assert left == pytest.approx(0.057, rel=0.02)


def test_weakness_a_common_direction_is_gone() -> None:
    """A loss whose gradient is the same in all entries: nothing moves, at any learning rate."""
    tx = optax.chain(
        gs.centering.mean_stabilize("tanh"), gs.moments.scale_by_adam(), optax.scale(-0.1)
    )
    params = jnp.ones(10)
    loss = lambda params: 0.5 * jnp.sum(params) ** 2  # noqa: E731
    assert not apply(tx, jax.grad(loss)(params)).any()


@pytest.mark.parametrize("adjust", ["none", "norm", *CURVES])
def test_an_offset_changes_nothing(adjust: str) -> None:
    g = normal(0.0, 1.0)
    moved = stabilized(g + np.float32(1000.0), adjust)
    np.testing.assert_allclose(moved, stabilized(g, adjust), atol=4e-3)


def test_before_adam_it_takes_an_offset_out_of_the_second_moment() -> None:
    g = jnp.asarray(normal(611.461, 12.6965))
    tx = optax.chain(gs.centering.mean_stabilize(), gs.moments.scale_by_adam())
    updates, state = jax.jit(lambda: tx.update(g, tx.init(g)))()
    adam_state: Any = state[1]
    assert jnp.sqrt(adam_state.nu.mean() / (1 - 0.999)) == pytest.approx(12.7, rel=0.05)
    signs = np.sign(np.asarray(updates))
    assert (signs > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (apply(gs.moments.scale_by_adam(), g) > 0.99).all(), (
        "Adam alone sees the offset and nothing else"
    )


def test_what_it_costs_in_words_per_parameter() -> None:
    params = {f"w{i}": jax.ShapeDtypeStruct((256, 512), jnp.float32) for i in range(3)}
    sgd, adam = optax.sgd(0.1), optax.chain(gs.moments.scale_by_adam(), optax.scale(-0.1))
    for tx, bare, words in (
        (gs.centering.centralize(), sgd, 5),
        (gs.centering.normalize(), sgd, 4),
        (gs.centering.normalize(units="leaf"), sgd, 5),
        (gs.centering.standardize(), sgd, 6),
        (gs.centering.mean_stabilize("tanh"), sgd, 6),
        (gs.centering.mean_stabilize("none"), adam, 13),
        (gs.centering.mean_stabilize("tanh"), adam, 15),
    ):
        count = count_common_path(optax.chain(tx, bare), params)
        assert count.words == pytest.approx(words, abs=0.15)
        if words < 15:
            assert count.temp < 0.05


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"adjust must be one of .*'snr'.* got 'relu'"):
        gs.centering.mean_stabilize("relu")
    with pytest.raises(ValueError, match="eps must be a number >= 0, got -1"):
        gs.centering.mean_stabilize(eps=-1.0)
