"""The z-loss, the soft cap, and label smoothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles import losses as oracle

z_loss, soft_cap, smooth_labels = gs.losses.z_loss, gs.losses.soft_cap, gs.losses.smooth_labels
PAIR = oracle.z_loss(np.asarray([[1.0, 2.0]]), 1e-4)[0]


@jax.jit
def z_with_gradient(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, pull = jax.vjp(z_loss, logits)
    return values, pull(jnp.ones_like(values))[0]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_z_loss_equals_the_oracle(scale: float) -> None:
    logits = (np.random.default_rng(0).normal(size=(30, 5)) * scale).astype(np.float32)
    values, gradient = z_with_gradient(logits)
    np.testing.assert_allclose(values, oracle.z_loss(logits, 1e-4), rtol=1e-5)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True).astype(float))
    shares = exponentials / exponentials.sum(-1, keepdims=True)
    log_z = np.sqrt(oracle.z_loss(logits, 1.0)) * np.sign(logits.max(-1))
    unsigned = np.abs(2e-4 * log_z[:, None] * shares)
    np.testing.assert_allclose(np.abs(gradient), unsigned, rtol=1e-3, atol=1e-10)


def test_z_loss_of_odd_logits() -> None:
    rows = [[-np.inf] * 3, [1.0, -np.inf, 2.0], [3e38, 0, 0], [-3e38] * 3, [np.inf, 0, 0]]
    rows.append([1e20, 0, 0])
    values, gradient = z_with_gradient(np.asarray(rows, np.float32))
    assert not jnp.isnan(values).any()
    assert jnp.isfinite(gradient).all()
    assert values[0] == 0
    np.testing.assert_allclose(values[5], 1e36, rtol=1e-6)
    np.testing.assert_allclose(values[1], PAIR, rtol=1e-6)


def test_z_loss_masks_rows_and_classes() -> None:
    logits = jnp.asarray([[1.0, 2.0, jnp.nan], [jnp.nan, jnp.nan, jnp.nan]])
    classes = z_loss(logits, where=~jnp.isnan(logits))
    np.testing.assert_allclose(classes[0], PAIR, rtol=1e-6)
    assert classes[1] == 0
    rows = z_loss(logits.at[0, 2].set(-jnp.inf), where=jnp.asarray([True, False]))
    np.testing.assert_allclose(rows, classes, rtol=1e-6)


def test_weakness_far_out_the_z_loss_pulls_harder_than_the_cross_entropy() -> None:
    for log_z, harder in ((4900.0, False), (5100.0, True)):
        _, gradient = z_with_gradient(jnp.asarray([[log_z, 0.0]]))
        assert (jnp.abs(gradient).max() > 1.0) == harder


def test_soft_cap_equals_the_oracle() -> None:
    x = np.concatenate([np.linspace(-200, 200, 81), [3e38, np.inf, -np.inf]]).astype(np.float32)
    values, pull = jax.vjp(lambda x: soft_cap(x, cap=30.0), jnp.asarray(x))
    np.testing.assert_allclose(values, 30 * np.tanh(x.astype(float) / 30), rtol=1e-6, atol=1e-6)
    (gradient,) = pull(jnp.ones_like(values))
    np.testing.assert_allclose(gradient, 1 - np.tanh(x.astype(float) / 30) ** 2, atol=1e-6)
    assert (jnp.abs(values) <= 30).all()


def test_soft_cap_is_the_identity_for_an_immense_cap() -> None:
    x = jnp.linspace(-5, 5, 11)
    np.testing.assert_allclose(soft_cap(x, cap=1e6), x, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_soft_cap_computes_low_precision_in_float32(dtype: str) -> None:
    x = jnp.asarray([0.1, 20.0, 6e4], dtype)
    values = soft_cap(x, cap=50.0)
    assert values.dtype == x.dtype
    expected = 50 * np.tanh(np.asarray(x, float) / 50)
    np.testing.assert_allclose(np.asarray(values, float), expected, rtol=4e-3)


def test_weakness_beyond_the_cap_the_gradient_vanishes() -> None:
    slope = jax.grad(lambda x: soft_cap(x, cap=50.0))
    np.testing.assert_allclose(slope(250.0), 1.8e-4, rtol=0.02)
    assert slope(1000.0) == 0


def test_smoothed_labels_equal_those_of_optax() -> None:
    labels = jax.nn.one_hot(jnp.asarray([0, 3, 1]), 5)
    ours = smooth_labels(labels, alpha=0.2)
    np.testing.assert_allclose(ours, optax.smooth_labels(labels, 0.2), rtol=1e-6)
    np.testing.assert_allclose(smooth_labels(labels.T, alpha=0.2, axis=0).T, ours)
    assert (smooth_labels(labels, alpha=0.0) == labels).all()


def test_pitfall_a_class_that_is_masked_gets_no_probability() -> None:
    """optax gives it a share, and the sum is 1.1."""
    label = jnp.asarray([1.0, 0.0, 0.0, 0.0])
    where = jnp.asarray([True, True, False, False])
    smooth = smooth_labels(label, where=where)
    np.testing.assert_allclose(smooth, [0.95, 0.05, 0, 0], rtol=1e-6)
    theirs = optax.smooth_labels(label, 0.1, where=where)
    np.testing.assert_allclose(theirs.sum(), 1.1, rtol=1e-6)
    assert smooth_labels(label, where=jnp.zeros(4, bool)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smoothed_labels_keep_their_dtype(dtype: str) -> None:
    labels = jax.nn.one_hot(jnp.asarray([1]), 4, dtype=dtype)
    smooth = smooth_labels(labels)
    assert smooth.dtype == labels.dtype
    np.testing.assert_allclose(np.asarray(smooth, float), [[0.025, 0.925, 0.025, 0.025]], rtol=4e-3)


def test_weakness_of_smoothed_labels() -> None:
    """The best gap between ten logits is 4.51, and the loss there 0.50."""
    gap = float(np.log(1 + 10 * 0.9 / 0.1))
    np.testing.assert_allclose(gap, 4.51, atol=0.005)
    logits = jnp.zeros((1, 10)).at[0, 0].set(gap)

    @jax.jit
    @jax.value_and_grad
    def loss(x: jax.Array) -> jax.Array:
        label = jnp.zeros(1, jnp.int32)
        return gs.losses.softmax_cross_entropy(x, label, label_smoothing=0.1).sum()

    value, gradient = loss(logits)
    np.testing.assert_allclose(value, 0.50, atol=0.005)
    assert jnp.abs(gradient).max() < 1e-6


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype in (jnp.float32, jnp.bfloat16):
            x, where = jnp.ones((3, 4), dtype), jnp.ones(3, bool)
            jax.eval_shape(functools.partial(z_loss, where=where), x)
            jax.eval_shape(z_with_gradient, x)
            jax.eval_shape(functools.partial(soft_cap, cap=30.0), x)
            jax.eval_shape(functools.partial(smooth_labels, where=where), x)
