"""Which part of a gradient stands out, against NumPy in float64."""

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from gradstable._src.core.parts import (
    SLOTS,
    Outlier,
    all_parts,
    no_parts,
    outlier_of,
    with_part,
)


def oracle(norms: np.ndarray, finite: np.ndarray) -> dict[str, Any]:
    """Return what stands out among a few parts."""
    found = {"of_parts": len(norms), "broken_parts": int((~finite).sum())}
    known = norms[finite & (norms > 0)].astype(np.float64)
    outlier = -1
    if known.size:
        logs = np.log(known)
        center = np.median(logs)
        spread = max(1.4826 * np.median(np.abs(logs - center)), 0.05)
        above = logs.max() - center
        if known.size >= 3 and above > max(6 * spread, np.log(3)):
            outlier = int(np.argmax(np.where(finite, norms, 0)))
        found |= {"median_norm": np.exp(center), "highest_norm": known.max()}
    if 0 < found["broken_parts"] < len(norms):
        outlier = int(np.argmin(finite))
    return {**found, "outlier": outlier}


def one_by_one(norms: np.ndarray, finite: np.ndarray) -> Outlier:
    parts = no_parts()
    for norm, sound in zip(norms, finite, strict=True):
        parts = with_part(parts, jnp.float32(norm), jnp.asarray(sound))
    return outlier_of(parts)


def agrees(found: Outlier, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-5, err_msg=name)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(0, 10_000), st.booleans(), st.integers(0, 2))
def test_outlier_is_that_of_the_oracle(number: int, seed: int, spiked: bool, broken: int) -> None:
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(scale=0.3, size=number)).astype(np.float32)
    norms[rng.random(number) < 0.1] = 0.0
    if spiked:
        norms[rng.integers(number)] *= 10.0 ** rng.uniform(0, 20)
    finite = np.ones(number, bool)
    finite[rng.integers(number, size=broken)] = False
    given_norms = np.where(finite, norms, rng.choice([np.nan, np.inf], number))
    wanted = oracle(norms, finite)
    agrees(outlier_of(all_parts(jnp.asarray(given_norms), jnp.asarray(finite))), wanted)
    agrees(one_by_one(given_norms, finite), wanted)


def test_healthy_parts_hardly_ever_stand_out() -> None:
    """Norms of micro-batches differ by a factor, and then six deviations are a lot."""
    rng = np.random.default_rng(0)
    norms = jnp.asarray(np.exp(rng.normal(scale=0.5, size=(2_000, 8))), jnp.float32)
    found = jax.vmap(lambda one: outlier_of(all_parts(one, one > 0)).outlier)(norms)
    assert float(jnp.mean(found >= 0)) < 0.01


@pytest.mark.parametrize("at", [0, 5, SLOTS, SLOTS + 20])
def test_largest_is_found_wherever_it_is(at: int) -> None:
    """Of a large group only the first norms are kept, which give the median."""
    norms = np.ones(SLOTS + 30, np.float32)
    norms[at] = 100.0
    found = one_by_one(norms, norms > 0)
    assert int(found.outlier) == at
    assert int(found.of_parts) == SLOTS + 30
    np.testing.assert_allclose(found.median_norm, 1.0, rtol=1e-6)


def test_of_two_parts_none_stands_out() -> None:
    found = outlier_of(all_parts(jnp.array([1.0, 1e6]), jnp.array([True, True])))
    assert int(found.outlier) == -1


def test_if_all_are_broken_none_stands_out() -> None:
    found = outlier_of(all_parts(jnp.full(4, jnp.nan), jnp.zeros(4, jnp.bool_)))
    assert (int(found.outlier), int(found.broken_parts)) == (-1, 4)
    assert all(np.isfinite(number) for number in found)


def test_pitfall_the_median_of_norms_at_the_end_of_float32_is_finite() -> None:
    found = outlier_of(all_parts(jnp.full(4, jnp.finfo(jnp.float32).max), jnp.ones(4, jnp.bool_)))
    assert np.isfinite(found.median_norm)
    np.testing.assert_allclose(found.median_norm, 3.4e38, rtol=0.01)


def test_pitfall_a_norm_beyond_float32_is_still_compared() -> None:
    found = outlier_of(all_parts(jnp.array([1.0, 1.0, 2.0, jnp.inf]), jnp.ones(4, jnp.bool_)))
    assert int(found.outlier) == 3
    assert np.isfinite(found.highest_norm)
