"""The numbers of a tap against NumPy in float64, for every dtype and size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from gradstable._src.taps.kinds import TapSums
from gradstable._src.taps.summary import COLUMNS, largest_of, summaries
from gradstable._src.taps.sums import POWER, row_of
from tests.oracles import taps as oracle

CLOSE = 2e-5


def seen(x: jax.Array, **kwargs: Any) -> dict[str, dict[str, float]]:
    """Return what a tap of ``x`` reads, whose gradient is ``x / 2``."""

    def loss_fn(scale: jax.Array) -> jax.Array:
        y = gs.tap("x", scale * x, **kwargs)
        return jnp.sum(y * jax.lax.stop_gradient(x / 2))

    _, taps = jax.jit(gs.taps.value_and_grad(loss_fn))(jnp.ones((), x.dtype))
    return gs.taps.read(taps)["x"]


def agree(found: dict[str, float], expected: dict[str, float], rel: float = CLOSE) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_as_in_float64(rng: np.random.Generator, dtype: str) -> None:
    x = jnp.asarray(rng.standard_normal((7, 33)) * 3, dtype).at[0, :5].set(0)
    limit = float(jnp.finfo(dtype).max) / 2
    both = seen(x)
    agree(both["forward"], oracle.statistics(np.asarray(x, np.float64), saturated_at=limit))
    half = np.asarray(x / 2, np.float64)
    agree(both["gradient"], oracle.statistics(half, saturated_at=limit))


@pytest.mark.parametrize("size", [1e-35, 1e-30, 1e-12, 1e-4, 1e4, 1e12, 1e30, 1e37])
def test_fourth_powers_neither_overflow_nor_underflow(
    rng: np.random.Generator, size: float
) -> None:
    x = jnp.asarray(rng.standard_normal(500) * size, jnp.float32)
    expected = oracle.statistics(np.asarray(x), saturated_at=np.inf)
    agree(seen(x, saturated_at=np.float32(3e38).item())["forward"], expected)


def test_outliers_far_above_the_rest_are_seen() -> None:
    x = jnp.full(1000, 1e-3).at[3].set(1e9)
    agree(seen(x)["forward"], oracle.statistics(np.asarray(x), saturated_at=1e38))


def test_entries_that_are_not_finite_are_counted_and_left_out() -> None:
    x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, 2.0, -4.0])
    row = row_of(x, axis=None, saturated_at=3.0, names=frozenset())
    found = dict(zip(COLUMNS, summaries(TapSums(row, row))[0].tolist(), strict=True))
    agree(found, oracle.statistics(np.asarray(x), saturated_at=3.0))
    assert found["not_finite"] == 0.5
    assert found["zeros"] == found["saturated"] == pytest.approx(1 / 3)


def test_saturated_is_the_last_power_of_two_of_float16() -> None:
    x = jnp.array([30000.0, 33000.0, -60000.0, 1.0], jnp.float16)
    assert seen(x)["forward"]["saturated"] == 0.5


def test_saturated_at_is_for_gates() -> None:
    x = jnp.array([0.5, 0.995, -0.999, 1.0])
    assert seen(x, saturated_at=0.99)["forward"]["saturated"] == 0.75


def test_no_entries_and_only_zeros() -> None:
    assert seen(jnp.zeros((0, 3)))["forward"]["calls"] == 1
    found = seen(jnp.zeros(4))["forward"]
    assert (found["rms"], found["max_abs"], found["kurtosis"], found["zeros"]) == (0, 0, 0, 1)


def test_many_entries_are_counted_exactly() -> None:
    # In float32, counting by ones would stop at 2**24.
    number = 2**24 + 64
    row = row_of(jnp.zeros(number), axis=None, saturated_at=1.0, names=frozenset())
    assert summaries(TapSums(row, row))[0][COLUMNS.index("zeros")] == 1.0


MOST = 40


@jax.jit
def added(sizes: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return bound and factor for calls of one entry each."""
    rows = jax.vmap(lambda x: row_of(x, axis=None, saturated_at=1.0, names=frozenset()))(sizes)
    there = jnp.arange(MOST)[:, None] < number
    return largest_of(jnp.sum(jnp.where(there, rows, 0.0), axis=0))


@given(st.lists(st.floats(min_value=0.0, max_value=2.0**127, width=32), min_size=1, max_size=MOST))
def test_bound_on_the_maximum_of_several_calls_holds(sizes: list[float]) -> None:
    padded = np.zeros(MOST, np.float32)
    padded[: len(sizes)] = sizes
    largest, factor = map(float, added(padded, len(sizes)))
    true = float(padded.max())
    if len(sizes) == 1:
        assert factor == 1.0
        assert largest == true or true < float(jnp.finfo(jnp.float32).tiny)
        return
    assert factor == pytest.approx(len(sizes) ** (1 / POWER), rel=1e-4)
    # Below 2**-124 a maximum counts as that.
    assert largest >= true or true < float(jnp.finfo(jnp.float32).tiny)
    assert largest <= max(true, 2.0**-124) * factor


def test_heads_have_their_own_maxima(rng: np.random.Generator) -> None:
    logits = jnp.asarray(rng.standard_normal((2, 3, 4, 5)) * 9, jnp.float32)
    logits = logits.at[:, 1].set(-jnp.inf).at[0, 2, 0, 0].set(jnp.nan).at[1, 0, :, 0].set(-1e30)

    def loss_fn(scale: jax.Array) -> jax.Array:
        tapped = gs.taps.attention_logits("a", scale * logits)
        return jnp.sum(jnp.where(jnp.isfinite(logits), tapped, 0.0))

    _, taps = jax.jit(gs.taps.value_and_grad(loss_fn))(1.0)
    np.testing.assert_allclose(
        gs.taps.max_logits(taps)["a"], oracle.max_logits(np.asarray(logits)), rtol=1e-6
    )
    found = gs.taps.read(taps)
    assert list(found) == ["a/head_0", "a/head_1", "a/head_2"]
    assert found["a/head_1"]["forward"]["max_abs"] == 0.0
    assert found["a/head_1"]["forward"]["not_finite"] == 0.0
    assert found["a/head_2"]["forward"]["not_finite"] == pytest.approx(1 / 40)
    assert np.isnan(found["a/head_0"]["forward"]["rms"])
    assert found["a/head_1"]["gradient"]["zeros"] == 1.0
    assert found["a/head_2"]["gradient"]["rms"] == pytest.approx(np.sqrt(39 / 40))


def test_merged_taps_are_those_of_all_with_the_exact_maximum(rng: np.random.Generator) -> None:
    parts = [jnp.asarray(rng.standard_normal(20) * size, jnp.float32) for size in (1, 5, 2)]
    grads_of = jax.jit(gs.taps.value_and_grad(lambda s, x: jnp.sum(gs.tap("x", s * x))))
    taps = [grads_of(1.0, part)[1] for part in parts]
    found = gs.taps.read(jax.jit(gs.taps.merge)(*taps))["x"]["forward"]
    expected = oracle.statistics(*map(np.asarray, parts), saturated_at=1e38)
    agree(found, expected)
    assert found["max_factor"] == 1.0
    assert found["max_abs"] == pytest.approx(expected["max_abs"], rel=1e-7)


def test_merging_steps_that_did_not_measure_keeps_the_others() -> None:
    grads_of = jax.jit(
        lambda s, when: gs.taps.value_and_grad(lambda s: jnp.sum(gs.tap("x", s)), when=when)(s)[1]
    )
    on, off = grads_of(jnp.arange(3.0), True), grads_of(jnp.arange(3.0), False)
    alone = gs.taps.read(on)
    assert gs.taps.read(gs.taps.merge(off, on, off)) == alone
    assert np.isnan(gs.taps.read(off)["x"]["forward"]["rms"])


def test_merge_refuses_other_taps() -> None:
    def taps(name: str) -> Any:
        return gs.taps.value_and_grad(lambda s: gs.tap(name, s))(1.0 * jnp.ones(()))[1]

    with pytest.raises(ValueError, match=r"different taps: \['a'\] and \['b'\]"):
        gs.taps.merge(taps("a"), taps("b"))
    with pytest.raises(ValueError, match="nothing to merge"):
        gs.taps.merge()
