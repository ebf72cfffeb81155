"""Finite and exact after the last cast: narrow dtypes, and gradients that they cannot hold."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.core.numerics import fits, stored
from gradstable._src.core.xla import cast
from tests.storm.optimizers import INNER

NARROW = (jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2)


def largest(dtype: Any) -> float:
    return float(jnp.finfo(dtype).max)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_fits_agrees_with_the_cast(dtype: Any, jit: bool) -> None:
    around = (largest(dtype) * np.linspace(0.97, 1.03, 4001)).clip(max=3.4e38)
    values = np.concatenate([around, -around, [0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    values = values[~np.isclose(np.abs(values), _halfway(dtype), rtol=1e-6)]
    with np.errstate(over="ignore"):
        expected = np.isfinite(values.astype(dtype).astype(np.float32))
    check = jax.jit(fits, static_argnums=1) if jit else fits
    np.testing.assert_array_equal(check(jnp.asarray(values), dtype), expected)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_cast_by_bits_is_a_cast(rng: np.random.Generator, dtype: Any, *, jit: bool) -> None:
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    ends = [0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x7F800001, 0xFFFFFFFF, 0x00000001, 0x80000000]
    x = jnp.asarray(np.append(bits, np.asarray(ends, np.uint32)).view(np.float32))
    made = (jax.jit(cast, static_argnums=1) if jit else cast)(x, dtype)
    np.testing.assert_array_equal(made.astype(jnp.float32), x.astype(dtype).astype(jnp.float32))
    assert jax.grad(lambda v: cast(v, dtype).astype(jnp.float32))(jnp.float32(2.0)) == 1.0


def _halfway(dtype: Any) -> float:
    # A tie may go either way: which, is the business of the dtype.
    info = ml_dtypes.finfo(dtype)
    return float(info.max) * (1 + 0.25 * float(info.eps))


@pytest.mark.parametrize("dtype", [*NARROW, jnp.int8, jnp.uint8, jnp.int32])
def test_what_is_stored_is_finite_and_says_what_was_not(dtype: Any) -> None:
    x = jnp.asarray([1.0, 3e38, -3e38, jnp.nan, jnp.inf], jnp.float32)
    kept, sound = jax.jit(stored, static_argnums=1)(x, jnp.dtype(dtype))
    assert kept.dtype == dtype
    assert bool(sound[0])
    assert not bool(sound[3])
    assert np.isfinite(np.asarray(kept[sound], np.float64)).all()
    assert float(kept[0]) == 1.0
    if jnp.issubdtype(dtype, jnp.floating) and largest(dtype) < 1e30:
        np.testing.assert_array_equal(np.float32(kept[1:3]), [largest(dtype), -largest(dtype)])


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_gradients_above_float16_do_not_freeze_adam(jit: bool) -> None:
    """Pitfall: five of 3e5 made ``mu`` infinite for ever, with 305 accepted and 0 rejected."""
    tx = gs.guard(optax.adam(1e-3))
    params = jnp.ones(3, jnp.float16)
    update, state = jax.jit(tx.update) if jit else tx.update, tx.init(params)
    for _ in range(5):
        _, state = update(jnp.full(3, 3e5), state, params)
        assert_finite(state.inner_state)
    for _ in range(3):
        updates, state = update(jnp.ones(3), state, params)
        assert_finite((updates, state.inner_state))
        assert (updates < 0).all()


@pytest.mark.parametrize("name", sorted(INNER.keys() - {"novograd"}))  # it takes no such gradients
def test_no_optimizer_keeps_an_infinity_in_float16(name: str) -> None:
    params = {"w": jnp.ones((4, 3), jnp.float16), "b": jnp.ones(3, jnp.float16)}
    tx = gs.guard(INNER[name]())
    state = tx.init(params)
    for size in (7e4, 3e5):
        gradients = jax.tree.map(lambda p, size=size: jnp.full(p.shape, size), params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert_finite((params, state.inner_state))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_overflow_saturates_in_a_small_range_and_is_refused_in_a_large_one(dtype: Any) -> None:
    """A second moment that stayed 0 would make the next step a division by ``eps``."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return updates, state.astype(jnp.float32) * updates

    tx = gs.guard(optax.GradientTransformation(jnp.ones_like, update))
    state = tx.init(jnp.ones((), dtype))
    _, state = tx.update(jnp.float32(2.0**15), state)
    before = float(state.inner_state)
    factor = 2.0**15 if dtype == jnp.float16 else 2.0**58
    for _ in range(3):
        _, state = tx.update(
            jnp.float32(factor), state._replace(rule_state=tx.init(0.0).rule_state)
        )
    assert before == 2.0**15
    assert float(state.inner_state) == (65504.0 if dtype == jnp.float16 else 2.0**73)


# Everything that touches updates behind the guard's judgement, alone and nested.
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "guard": gs.guard,
    "loss_scale": lambda inner: gs.loss_scale(gs.guard(inner), init_scale=1.0),
    "accumulate": lambda inner: gs.accumulate(gs.guard(inner), 1),
    "rollback": lambda inner: gs.rollback(gs.guard(inner)),
    "backoff": lambda inner: gs.backoff(gs.guard(inner)),
    "record": lambda inner: gs.record(gs.guard(inner)),
    "kahan": lambda inner: gs.precision.kahan(gs.guard(inner)),
    "guard(kahan)": lambda inner: gs.guard(gs.precision.kahan(inner)),
    "stochastic_round": lambda inner: gs.guard(optax.chain(inner, gs.precision.stochastic_round())),
    "behind stochastic_round": lambda inner: optax.chain(
        gs.guard(inner), gs.precision.stochastic_round()
    ),
    "kahan(loss_scale)": lambda inner: gs.precision.kahan(
        gs.loss_scale(gs.guard(inner), init_scale=1.0)
    ),
    "loss_scale(accumulate)": lambda inner: gs.loss_scale(
        gs.accumulate(gs.guard(inner), 1), init_scale=1.0
    ),
    "loss_scale(backoff(rollback))": lambda inner: gs.loss_scale(
        gs.backoff(gs.rollback(gs.guard(inner))), init_scale=1.0
    ),
    "record(loss_scale)": lambda inner: gs.record(gs.loss_scale(gs.guard(inner), init_scale=1.0)),
}


@pytest.mark.parametrize("of_gradients", [jnp.float32, None], ids=["float32", "narrow"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", WRAPPED)
def test_no_wrapper_lets_a_parameter_overflow(name: str, dtype: Any, of_gradients: Any) -> None:
    """Pitfall: ``loss_scale`` narrowed what the guard had judged in float32."""
    tx = WRAPPED[name](optax.sgd(1.0))
    size = 6e4 if dtype == jnp.float16 else 3e38
    params = jnp.asarray([size, 1.0], dtype)
    # Small enough for the rule of thumb against overflow, where float32 has the range.
    step = size / 2 if dtype == jnp.float16 else 2.0**59
    gradients = jnp.asarray([-step, 1.0], of_gradients or dtype)
    updates, _ = tx.update(gradients, tx.init(params), params, value=1.0)
    new = optax.apply_updates(params, updates)
    assert_finite(new)
    if dtype == jnp.float16:  # rounding by chance takes the largest number instead
        assert float(new[0]) in (float(params[0]), largest(dtype))
    assert float(new[1]) == 0.0


def test_loss_scale_keeps_what_the_guard_keeps() -> None:
    params, gradients = jnp.asarray([6e4, 1.0], jnp.float16), jnp.full(2, -3e4, jnp.float16)
    for tx in (gs.guard(optax.sgd(1.0)), WRAPPED["loss_scale"](optax.sgd(1.0))):
        updates, _ = tx.update(gradients, tx.init(params), params)
        new = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(new, np.asarray([6e4, 3e4], np.float16))


def assert_finite(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), tree


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_a_complex_sum_is_tested_as_it_is_stored(*, jit: bool) -> None:
    """A state that begins in complex64, and is handed back as wide as the gradients."""
    adds = optax.GradientTransformation(
        lambda params: jnp.zeros_like(params, jnp.complex64),
        lambda updates, state, params=None: (updates, state + updates),
    )
    with jax.enable_x64(True):
        tx, params = gs.guard(adds), jnp.ones(2, jnp.complex128)
        state = tx.init(params)
        update = jax.jit(tx.update) if jit else tx.update
        for size in (1e100 - 1e100j, 1.0j):
            _, state = update(jnp.full(2, size, jnp.complex128), state, params)
        np.testing.assert_array_equal(state.wrapped_state, np.full(2, 1.0j, np.complex64))
