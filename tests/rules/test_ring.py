"""The ring remembers the last numbers, and its statistics are those of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstable._src.rules.ring import (
    Ring,
    mean_and_std,
    median_and_mad,
    new_ring,
    number_held,
    percentile_of,
    push,
)

WINDOW = 7


@jax.jit
def filled(values: jax.Array, number: jax.Array) -> Ring:
    """Return a ring into which the first ``number`` of the values were pushed."""
    steps = jnp.arange(values.size)
    body = lambda ring, step: (push(ring, values[step], when=step < number), None)  # noqa: E731
    return jax.lax.scan(body, new_ring(WINDOW), steps)[0]


@jax.jit
def statistics(ring: Ring, percent: jax.Array) -> tuple[jax.Array, ...]:
    return (
        *mean_and_std(ring, ddof=0),
        *mean_and_std(ring, ddof=1),
        percentile_of(ring, percent),
        *median_and_mad(ring),
    )


def expected(kept: np.ndarray, percent: float) -> tuple[float, ...]:
    mean, median = np.mean(kept), np.median(kept)
    return (
        mean,
        np.std(kept),
        mean,
        np.std(kept, ddof=1) if kept.size > 1 else 0.0,
        np.percentile(kept, percent),
        median,
        np.median(np.abs(kept - median)),
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=20, max_size=20),
    st.integers(1, 20),
    st.floats(0.0, 100.0),
)
def test_statistics_are_those_of_numpy(values: list[float], number: int, percent: float) -> None:
    ring = filled(jnp.asarray(values, jnp.float32), jnp.asarray(number))
    kept = np.asarray(values[:number][-WINDOW:])
    assert int(number_held(ring)) == kept.size
    found = statistics(ring, jnp.float32(percent))
    size = np.abs(kept).max()
    np.testing.assert_allclose(found, expected(kept, percent), rtol=1e-5, atol=1e-5 * size + 1e-30)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 2.0**60])
def test_pitfall_squares_neither_overflow_nor_vanish(unit: float) -> None:
    """The squares of norms of 1e-30 are zero in float32, and those of 2**60 are near its limit."""
    values = np.linspace(1.0, 2.0, 20) * unit
    ring = filled(jnp.asarray(values, jnp.float32), jnp.asarray(20))
    found = np.asarray(statistics(ring, jnp.float32(30.0))) / unit
    np.testing.assert_allclose(found, expected(values[-WINDOW:] / unit, 30.0), rtol=1e-5)


def test_equal_numbers_have_no_spread() -> None:
    ring = filled(jnp.full(20, 0.1, jnp.float32), jnp.asarray(20))
    mean, std = mean_and_std(ring, ddof=1)
    assert mean == jnp.float32(0.1)
    assert std == 0.0


def test_empty_ring() -> None:
    found = statistics(new_ring(WINDOW), jnp.float32(50.0))
    assert [float(number) for number in found[:4]] == [0.0] * 4
    assert all(np.isposinf(number) for number in found[4:])
