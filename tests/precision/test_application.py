"""Kahan and stochastic rounding: bfloat16 parameters move as float32 ones do."""

from typing import Any

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

SIZE, STEPS = 256, 1000
LOW = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: np.dtype(d).name)


def descend(tx: optax.GradientTransformation, dtype: Any, steps: int = STEPS) -> np.ndarray:
    """Return what becomes of ones under gradients of one."""
    params = jnp.ones(SIZE, dtype)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jnp.ones(SIZE, dtype), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, tx.init(params)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=steps))(start)
    return np.asarray(params, np.float64)


def test_pitfall_plain_bfloat16_stays_where_it_was() -> None:
    assert (descend(optax.sgd(1e-3), jnp.bfloat16) == 1.0).all()


@LOW
@pytest.mark.parametrize("steps", [333, STEPS])
@pytest.mark.parametrize("kept", [None, jnp.float32, jnp.int8])
def test_kahan_moves_low_precision_as_float32_moves(dtype: Any, steps: int, kept: Any) -> None:
    reference = descend(optax.sgd(1e-3), jnp.float32, steps)
    ours = descend(gs.guard(gs.precision.kahan(optax.sgd(1e-3), dtype=kept)), dtype, steps)
    # One spacing of bfloat16 below 1; and the rate itself, rounded to it 1,000 times.
    assert np.abs(ours - reference).max() <= 2.0**-8


@LOW
def test_stochastic_rounding_moves_low_precision_on_the_average(dtype: Any) -> None:
    chain = optax.chain(optax.sgd(1e-3), gs.precision.stochastic_round())
    for steps in (333, STEPS):
        ours = descend(gs.guard(chain), dtype, steps)
        reference = descend(optax.sgd(1e-3), jnp.float32, steps)
        # Steps of 1e-3 at a spacing of 2**-8 or less: the walk has a deviation below
        # sqrt(1000 * 1e-3 * 2**-8) = 0.063, and the mean of 256 of them 0.004.
        assert abs(ours.mean() - reference.mean()) < 4 * 0.004


def wrapped(kind: str) -> optax.GradientTransformation:
    """A transform whose updates are the gradients, applied in one of the ways."""
    if kind == "kahan":
        return gs.precision.kahan(optax.identity())
    return gs.precision.stochastic_round(1)


@pytest.mark.parametrize("kind", ["kahan", "stochastic"])
@LOW
def test_zero_and_broken_updates_move_nothing(kind: str, dtype: Any) -> None:
    params = jnp.array([1.0, -0.0, 3e-5, 100.0], dtype)
    tx = wrapped(kind)
    state = tx.init(params)
    step = jax.jit(tx.update)
    _, state = step(jnp.full(4, 1e-4, dtype), state, params)
    for bad in (0.0, -0.0, jnp.nan, jnp.inf, -jnp.inf):
        updates, new = step(jnp.full(4, bad, dtype), state, params)
        moved = optax.apply_updates(params, updates)
        assert np.asarray(moved).tobytes() == np.asarray(params).tobytes()
        if kind == "kahan":
            chex.assert_trees_all_equal(new.compensation, state.compensation)


@LOW
@hypothesis.given(
    theta=st.floats(-1e3, 1e3, width=16),
    updates=st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=8),
)
def test_kahan_loses_nothing(dtype: Any, theta: float, updates: list[float]) -> None:
    """Parameter and compensation together are the sum, to the precision of the compensation."""
    tx = gs.precision.kahan(optax.identity(), dtype=jnp.float32)
    params = jnp.full((), theta, dtype)
    total = float(params)
    state = tx.init(params)
    for one in updates:
        u, state = tx.update(jnp.full((), one, jnp.float32), state, params)
        params = optax.apply_updates(params, u)
        total += float(np.float32(one))
    assert float(params) + float(state.compensation.unnamed) == pytest.approx(
        total, rel=1e-5, abs=1e-5
    )


@LOW
@hypothesis.given(
    theta=st.floats(-1e3, 1e3, width=16),
    updates=st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=8),
)
def test_kahan_in_a_byte_loses_a_256th_of_a_spacing(
    dtype: Any, theta: float, updates: list[float]
) -> None:
    tx = gs.precision.kahan(optax.identity(), dtype=jnp.int8)
    params = jnp.full((), theta, dtype)
    total, lost = float(params), 0.0
    state = tx.init(params)
    info = jnp.finfo(dtype)
    for one in updates:
        u, state = tx.update(jnp.full((), one, jnp.float32), state, params)
        params = optax.apply_updates(params, u)
        total += float(np.float32(one))
        exponent = np.floor(np.log2(max(abs(float(params)), float(info.smallest_normal))))
        lost += 2.0 ** (exponent - info.nmant - 8)
    kept = float(state.compensation.unnamed) * 2.0 ** (exponent - info.nmant - 8)
    # And the rounding of an update itself, where it is larger than the parameter.
    lost += sum(map(abs, updates)) * 2.0 ** -(info.nmant + 1)
    assert abs(float(params) + kept - total) <= lost + 1e-6


def test_kahan_in_a_byte_moves_by_far_less_than_its_unit() -> None:
    """On average: a step of a fourth of a unit, with a rate that changes a little."""
    params, count = jnp.ones(4096, jnp.bfloat16), 400
    step = 0.25 * 2.0**-15

    def schedule(t: Any) -> Any:
        return step * (1.0 + 1e-3 * t / count)

    tx = gs.precision.kahan(optax.sgd(schedule), dtype=jnp.int8)

    def one(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jnp.ones(4096), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, tx.init(params)
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(one, c, None, length=count))(start)
    moved = 1.0 - np.asarray(params, np.float64)
    # Below 1 the spacing is 2**-8.
    unit = np.where(moved > 0, 2.0**-16, 2.0**-15)
    moved -= np.asarray(state.compensation.unnamed, np.float64) * unit
    assert moved.mean() == pytest.approx(count * step, rel=0.02)


def test_seven_bytes_a_parameter() -> None:
    """Parameters, gradients, and all that protected AdamW keeps."""
    tx = gs.precision.kahan(gs.adamw_8bit(1e-3), dtype=jnp.int8)
    params = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)
    held = [params, params, *jax.tree.leaves(jax.eval_shape(tx.init, params))]
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in held) / params.size <= 7.001


@LOW
@hypothesis.given(theta=st.floats(-100.0, 100.0, width=16), u=st.floats(-100.0, 100.0, width=32))
def test_stochastic_rounding_takes_a_neighbor(dtype: Any, theta: float, u: float) -> None:
    """One of the two numbers next to the exact sum, or that within a rounding of the update."""
    params = jnp.full((64,), theta, dtype)
    tx = gs.precision.stochastic_round(3)
    updates, _ = tx.update(jnp.full((64,), u, jnp.float32), tx.init(params), params)
    new = np.asarray(optax.apply_updates(params, updates), np.float64)
    exact = float(params[0]) + float(np.float32(u))
    info = jnp.finfo(dtype)
    spacing = 2.0 ** (np.floor(np.log2(max(abs(exact), 2.0**-14))) - info.nmant)
    rounding = abs(float(np.float32(u))) * 2.0 ** -(info.nmant + 1)
    assert (np.abs(new - exact) <= spacing + rounding + 1e-7).all()


def test_stochastic_rounding_is_repeatable_and_differs_between_steps() -> None:
    params = jnp.ones(512, jnp.bfloat16)
    tx = gs.precision.stochastic_round(7)
    state = tx.init(params)
    u = jnp.full(512, 1e-3, jnp.bfloat16)
    first, second = tx.update(u, state, params), tx.update(u, state, params)
    chex.assert_trees_all_equal(first, second)
    again, _ = tx.update(u, first[1], params)
    assert not jnp.array_equal(again, first[0])


@pytest.mark.parametrize("kind", ["kahan", "stochastic"])
def test_float32_passes_as_it_is(kind: str) -> None:
    params, u = jnp.ones(3), jnp.array([1e-9, 1.0, -2.0])
    tx = wrapped(kind)
    updates, _ = tx.update(u, tx.init(params), params)
    chex.assert_trees_all_equal(updates, u)


def test_kahan_equals_itself_in_and_outside_of_jit() -> None:
    """Pitfall: XLA keeps excess precision, and would find nothing lost in the rounding."""
    params = jax.random.normal(jax.random.key(0), (100,)).astype(jnp.bfloat16)
    u = 1e-3 * jax.random.normal(jax.random.key(1), (100,))
    tx = gs.precision.kahan(optax.identity())
    state = tx.init(params)
    outside, inside = tx.update(u, state, params), jax.jit(tx.update)(u, state, params)
    chex.assert_trees_all_equal(outside, inside)
    assert bool((outside[1].compensation.unnamed != 0).any())


@pytest.mark.parametrize(
    "factory", [lambda: gs.precision.kahan(optax.sgd(0.1)), gs.precision.stochastic_round]
)
def test_missing_params_are_named(factory: Any) -> None:
    tx = factory()
    with pytest.raises(ValueError, match="params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
