"""Losses whose gradient has a bound: Huber, log-cosh, the sigmoid's cross-entropy, masked means."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from tests.oracles import losses as oracle

huber, log_cosh = gs.losses.huber, gs.losses.log_cosh
sigmoid_loss = gs.losses.sigmoid_binary_cross_entropy

INF = np.inf
ERRORS = np.asarray(
    [0, 1e-42, 1e-10, 1e-4, 0.1, 0.999, 1, 1.001, 5, 80, 300, 1e4, 1e19, 3e38, INF], np.float32
)
ERRORS = np.concatenate([ERRORS, -ERRORS])


def with_gradient(loss: Callable[..., jax.Array]) -> Any:
    @jax.jit
    def run(first: jax.Array, *others: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, pull = jax.vjp(lambda x: loss(x, *others), first)
        return values, pull(jnp.ones_like(values))[0]

    return run


def test_huber_equals_the_oracle_and_its_gradient_the_bound() -> None:
    for delta in (0.1, 1.0, 30.0):
        values, gradient = with_gradient(lambda e, d=delta: huber(e, delta=d))(ERRORS)
        finite = np.abs(ERRORS) < 1e37
        expected = oracle.huber(ERRORS[finite], delta)
        np.testing.assert_allclose(values[finite], expected, rtol=1e-6, atol=1e-41)
        np.testing.assert_allclose(gradient, np.clip(ERRORS, -delta, delta), rtol=1e-6, atol=1e-41)
        assert jnp.isinf(values[jnp.isinf(ERRORS)]).all()


def test_log_cosh_equals_the_oracle_and_its_gradient_tanh() -> None:
    values, gradient = with_gradient(log_cosh)(ERRORS)
    moderate = np.abs(ERRORS) < 700
    expected = oracle.log_cosh(ERRORS[moderate])
    np.testing.assert_allclose(values[moderate], expected, rtol=1e-6, atol=1e-41)
    np.testing.assert_allclose(values[np.abs(ERRORS) == 3e38], 3e38, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.tanh(ERRORS), rtol=1e-6, atol=1e-41)


def test_pitfall_log_cosh_of_small_errors_keeps_its_digits() -> None:
    error = jnp.asarray(1e-4)
    np.testing.assert_allclose(log_cosh(error), 5e-9, rtol=1e-5)
    assert optax.losses.log_cosh(error) == 0


def test_pitfall_the_gradient_of_huber_keeps_its_digits() -> None:
    """That of optax is delta - (delta - error)."""
    error = jnp.asarray(0.02)
    np.testing.assert_allclose(jax.grad(lambda e: huber(e, delta=1e6))(error), 0.02, rtol=1e-6)
    assert jax.grad(lambda e: optax.losses.huber_loss(e, delta=1e6))(error) == 0


def test_curvature() -> None:
    second = jax.jit(jax.vmap(jax.grad(jax.grad(log_cosh))))
    errors = jnp.asarray([0.0, 0.5, 1.0, 3e38])
    np.testing.assert_allclose(second(errors), 1 - np.tanh(errors) ** 2, atol=1e-6)
    assert jax.grad(jax.grad(lambda e: huber(e, jnp.asarray(1.0))))(jnp.asarray(1.0)) == 1.0


PAIRS = [
    (INF, INF, 0.0),
    (-INF, -INF, 0.0),
    (INF, -INF, 1.0),
    (3e38, -3e38, 1.0),
    (-3e38, 3e38, -1.0),
    (1.0, INF, -1.0),
]


@pytest.mark.parametrize("loss", [huber, log_cosh])
def test_gradient_is_bounded_for_any_pair(loss: Callable[..., jax.Array]) -> None:
    predictions, targets, slopes = np.asarray(PAIRS, np.float32).T
    values, gradient = with_gradient(loss)(predictions, targets)
    assert not jnp.isnan(values).any()
    assert values[0] == values[1] == 0
    assert gradient.tolist() == slopes.tolist()


@pytest.mark.parametrize("loss", [huber, log_cosh])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_errors_do_not_overflow(loss: Callable[..., jax.Array], dtype: str) -> None:
    predictions = jnp.asarray([6e4, 0.1], dtype)
    values, gradient = with_gradient(loss)(predictions, -predictions)
    assert values.dtype == jnp.float32
    assert gradient.dtype == predictions.dtype
    error = 2 * np.asarray(predictions, np.float64)
    expected = [abs(error[0]) - (0.5 if loss is huber else np.log(2)), loss(error[1])]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [huber, log_cosh, sigmoid_loss])
def test_pitfall_entries_that_do_not_count_have_no_gradient(loss: Callable[..., Any]) -> None:
    where = jnp.asarray([True, False, False])
    values, gradient = with_gradient(lambda x, y: loss(x, y, where=where))(
        jnp.asarray([2.0, jnp.nan, 1.0]), jnp.asarray([1.0, 0.0, jnp.nan])
    )
    assert jnp.isfinite(values).all()
    assert values[1:].tolist() == gradient[1:].tolist() == [0, 0]
    assert values[0] > 0


LOGITS = np.asarray([0, 1e-10, 1, 17, 30, 80, 200, 1e4, 3e38, INF], np.float32)
LOGITS = np.concatenate([LOGITS, -LOGITS])


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_sigmoid_equals_the_oracle(label: float) -> None:
    labels = np.full(LOGITS.shape, label, np.float32)
    values, gradient = with_gradient(sigmoid_loss)(LOGITS, labels)
    normal = np.abs(LOGITS) < 85  # beyond, exp(-x) is subnormal
    expected = oracle.sigmoid_binary_cross_entropy(LOGITS[normal], labels[normal])
    np.testing.assert_allclose(values[normal], expected, rtol=1e-6)
    x = np.clip(LOGITS[normal].astype(float), -85, 85)
    slopes = (1 - labels[normal]) / (1 + np.exp(-x)) - labels[normal] / (1 + np.exp(x))
    np.testing.assert_allclose(gradient[normal], slopes, rtol=1e-5, atol=1e-7 * (0 < label < 1))
    assert not jnp.isnan(values).any()
    assert (jnp.abs(gradient) <= 1).all()


def test_pitfall_sigmoid_of_infinite_logits() -> None:
    """optax gives NaN where they are right."""
    logits, labels = jnp.asarray([INF, -INF, INF, -INF]), jnp.asarray([1, 0, 0, 1])
    values, gradient = with_gradient(sigmoid_loss)(logits, labels)
    assert values.tolist() == [0, 0, INF, INF]
    assert gradient.tolist() == [0, 0, 1, -1]
    _, forwards = jax.jvp(lambda x: sigmoid_loss(x, labels), (logits,), (jnp.ones(4),))
    assert forwards.tolist() == [0, 0, 1, -1]
    theirs = optax.sigmoid_binary_cross_entropy
    assert jnp.isnan(theirs(logits[:2], labels[:2])).all()


def test_weakness_a_wrong_label_pulls_with_all_its_force() -> None:
    _, gradient = with_gradient(sigmoid_loss)(jnp.asarray([20.0, 2000.0]), jnp.zeros(2))
    assert gradient.tolist() == [1, 1]


def test_equals_optax_where_that_is_right() -> None:
    x = jnp.linspace(-9, 9, 37)
    np.testing.assert_allclose(huber(x, delta=2.0), optax.losses.huber_loss(x, delta=2.0))
    np.testing.assert_allclose(log_cosh(x), optax.losses.log_cosh(x), rtol=1e-4, atol=1e-6)
    labels = (x > 0).astype(jnp.float32)
    theirs = optax.sigmoid_binary_cross_entropy(x, labels)
    np.testing.assert_allclose(sigmoid_loss(x, labels), theirs, rtol=1e-6)


def test_huber_is_half_the_square_at_an_infinite_delta() -> None:
    x = jnp.linspace(-9, 9, 37)
    np.testing.assert_allclose(huber(x, delta=1e30), x**2 / 2, rtol=1e-6)


RUN = with_gradient(lambda p, t: huber(p, t, delta=2.0))
RUN_LOG_COSH = with_gradient(log_cosh)
ANY = st.floats(width=32, allow_nan=False)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ANY, ANY)
def test_law_bounded_and_even(prediction: float, target: float) -> None:
    pair = np.asarray([[prediction], [target]], np.float32)
    for run, bound in ((RUN, 2.0), (RUN_LOG_COSH, 1.0)):
        values, gradient = run(*pair)
        mirrored, opposite = run(*-pair)
        assert values >= 0
        assert abs(gradient[0]) <= bound
        assert (mirrored, opposite[0]) == (values, -gradient[0])


def test_weakness_outliers_pull_with_all_of_delta() -> None:
    """One in ten: the fitted mean of normal data moves by 0.16 standard deviations."""
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(size=9000), np.full(1000, 1e6)]).astype(np.float32)
    slope = jax.jit(jax.grad(lambda m: huber(m - data).mean()))
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    np.testing.assert_allclose(low - data[:9000].mean(), 0.16, atol=0.01)


def test_masked_mean() -> None:
    values = jnp.asarray([[1.0, 2.0], [jnp.nan, 5.0]], jnp.bfloat16)
    where = jnp.asarray([[True, True], [False, True]])
    found = gs.losses.masked_mean(values, where=where)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 8 / 3, rtol=1e-6)
    assert gs.losses.masked_mean(jnp.asarray([1.0, 3.0])) == 2.0
    assert gs.losses.masked_mean(jnp.zeros(0)) == 0


def test_masked_mean_sums_low_precision_in_float32() -> None:
    assert gs.losses.masked_mean(jnp.ones(70_000, jnp.float16)) == 1
    assert gs.losses.masked_mean(jnp.ones(70_000, jnp.bfloat16), where=jnp.ones(70_000, bool)) == 1


def test_weakness_a_mean_of_masked_means_weighs_devices_alike() -> None:
    values = jnp.asarray([[4.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    where = jnp.asarray([[True, False, False], [True, True, True]])
    each = jax.vmap(lambda v, w: gs.losses.masked_mean(v, where=w))(values, where)
    assert (each.mean(), gs.losses.masked_mean(values, where=where)) == (2.5, 1.75)


@pytest.mark.parametrize("loss", [huber, log_cosh, sigmoid_loss])
def test_pitfall_shapes_that_broadcast_are_refused(loss: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError, match=r"has shape \(3,\), but (targets|labels) has shape \(3, 1"
    ):
        loss(jnp.ones(3), jnp.ones((3, 1)))
    with pytest.raises(TypeError, match=r"(predictions|logits) must be real floating-point"):
        loss(jnp.ones(3, jnp.int32), jnp.ones(3))


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for loss in (huber, log_cosh, sigmoid_loss):
            for dtype in (jnp.float32, jnp.bfloat16):
                x, y, where = jnp.ones(3, dtype), jnp.ones(3, jnp.int8), jnp.ones(3, bool)
                jax.eval_shape(with_gradient(functools.partial(loss, where=where)), x, y)
                jax.eval_shape(functools.partial(gs.losses.masked_mean, where=where), x)
