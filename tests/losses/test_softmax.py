"""Cross-entropies of a softmax: numbers, masks, and gradients that are finite."""

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

cross_entropy = gs.losses.softmax_cross_entropy
INF = np.inf


def value_and_grad(**options: Any) -> Any:
    """Return the losses, and the gradient of their sum, of logits and labels."""

    @jax.jit
    def run(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses, pull = jax.vjp(lambda x: cross_entropy(x, labels, **options), logits)
        return losses, pull(jnp.ones_like(losses))[0]

    return run


def example(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(40, 7)) * scale).astype(np.float32)
    return logits, rng.integers(0, 7, 40), rng.dirichlet(np.ones(7), 40).astype(np.float32)


OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_weight": 1e-4},
    {"label_smoothing": 0.3, "z_weight": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_equals_the_float64_oracle(options: dict[str, float], scale: float) -> None:
    logits, classes, shares = example(0, scale)
    run = jax.jit(lambda *args: cross_entropy(*args, **options))
    for labels in (classes, shares):
        expected = oracle.softmax_cross_entropy(logits, labels, **options)
        np.testing.assert_allclose(run(logits, labels), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_computed_in_float32(dtype: str) -> None:
    logits, classes, _ = example(1, 4.0)
    logits = jnp.asarray(logits, dtype)
    losses, gradient = value_and_grad()(logits, classes)
    assert losses.dtype == jnp.float32
    assert gradient.dtype == logits.dtype
    expected = oracle.softmax_cross_entropy(np.asarray(logits, np.float64), classes)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_pitfall_float16_sums_over_a_vocabulary() -> None:
    """optax sums 70000 exponentials in float16, and gets inf."""
    logits, label = jnp.zeros((1, 70_000), jnp.float16), jnp.zeros(1, jnp.int32)
    ours = jax.jit(cross_entropy)(logits, label)
    np.testing.assert_allclose(ours, np.log(70_000), rtol=1e-5)
    assert jnp.isinf(optax.softmax_cross_entropy_with_integer_labels(logits, label))


def test_equals_optax_where_that_is_right() -> None:
    logits, classes, shares = example(2, 3.0)

    @jax.jit
    def pairs(logits: jax.Array, classes: jax.Array, shares: jax.Array) -> Any:
        smoothed = gs.losses.smooth_labels(jax.nn.one_hot(classes, 7), alpha=0.2)
        ours = cross_entropy(logits, shares)
        integers = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
        return (
            (cross_entropy(logits, classes), integers),
            (ours, optax.softmax_cross_entropy(logits, shares)),
            (cross_entropy(logits, classes, label_smoothing=0.2), cross_entropy(logits, smoothed)),
            (cross_entropy(logits.T, shares.T, axis=0), ours),
        )

    for ours, theirs in pairs(logits, classes, shares):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


ODD = np.asarray(
    [
        [1.0, 2.0, -INF],  # a class that is masked
        [-INF, 5.0, -INF],  # only one that is not
        [-INF, -INF, -INF],  # none
        [3e38, -3e38, 0.0],
        [INF, 0.0, 0.0],
        [-3e38, -3e38, -3e38],
        [0.0, 1e-42, 0.0],
    ],
    np.float32,
)
ODD_CLASSES = np.asarray([0, 1, 0, 0, 0, 2, 1])


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize("one_hot", [False, True])
def test_pitfall_masked_classes_and_infinite_logits(
    one_hot: bool, options: dict[str, float]
) -> None:
    """optax gives NaN for the third row, and for the first if labels are distributions."""
    labels = jax.nn.one_hot(ODD_CLASSES, 3) if one_hot else ODD_CLASSES
    losses, gradient = value_and_grad(**options)(ODD, labels)
    assert not jnp.isnan(losses).any()
    assert jnp.isfinite(gradient).all()
    healthy = [0, 1, 5, 6]
    expected = oracle.softmax_cross_entropy(ODD[healthy], ODD_CLASSES[healthy], **options)
    np.testing.assert_allclose(losses[jnp.asarray(healthy)], expected, rtol=1e-5, atol=1e-6)
    assert losses[2] == 0
    assert gradient[2].tolist() == [0, 0, 0]
    if not options:
        assert losses[3] == losses[4] == 0
    if not options and not one_hot:
        theirs = optax.softmax_cross_entropy_with_integer_labels(ODD, jnp.asarray(ODD_CLASSES))
        assert jnp.isnan(theirs[2])


@pytest.mark.parametrize("rubbish", [np.nan, INF, -INF, 3e38])
def test_rows_that_do_not_count_are_not_looked_at(rubbish: float) -> None:
    logits, classes, _ = example(3, 1.0)
    where = np.arange(40) % 3 > 0
    broken, padded = logits.copy(), classes.copy()
    broken[~where], padded[~where] = rubbish, -100
    losses, gradient = value_and_grad(where=where, z_weight=1e-4, label_smoothing=0.1)(
        broken, padded
    )
    expected = oracle.softmax_cross_entropy(logits, classes, z_weight=1e-4, label_smoothing=0.1)
    np.testing.assert_allclose(losses, np.where(where, expected, 0), rtol=1e-5)
    assert jnp.isfinite(gradient).all()
    assert (gradient[~where] == 0).all()


def test_classes_that_do_not_count() -> None:
    logits, classes, _ = example(4, 2.0)
    there = np.random.default_rng(5).random((40, 7)) < 0.6
    there[np.arange(40), classes] = True
    there[7] = False
    losses, gradient = value_and_grad(where=there, label_smoothing=0.1)(
        np.where(there, logits, np.nan).astype(np.float32), classes
    )
    expected = oracle.softmax_cross_entropy(logits, classes, classes=there, label_smoothing=0.1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(gradient).all()
    assert (gradient[~there] == 0).all()


def test_pitfall_a_batch_of_padding_is_zero_and_not_nan() -> None:
    nothing = jnp.zeros(4, bool)

    def loss(logits: jax.Array) -> jax.Array:
        losses = cross_entropy(logits, jnp.zeros(4, jnp.int32), where=nothing)
        return gs.losses.masked_mean(losses, where=nothing)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.full((4, 3), jnp.nan))
    assert value == 0
    assert (gradient == 0).all()
    assert jnp.isnan(jnp.mean(jnp.ones(4), where=nothing))


def test_labels_that_cannot_be_are_told() -> None:
    logits = jnp.asarray([[0.0, -INF], [0.0, 0.0], [0.0, 0.0]])
    losses, gradient = value_and_grad()(logits, jnp.asarray([1, 2, -1]))
    assert losses[0] == jnp.inf
    assert jnp.isnan(losses[1:]).all()
    assert jnp.isfinite(gradient).all()
    one_hot = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    losses, gradient = value_and_grad()(logits, one_hot)
    assert losses[0] == jnp.inf
    assert jnp.isfinite(gradient).all()


ROWS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4)
RUN = value_and_grad()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ROWS, st.integers(0, 3), st.floats(-1e3, 1e3, width=32))
def test_gradient_is_bounded_sums_to_zero_and_ignores_a_shift(
    row: list[float], label: int, shift: float
) -> None:
    logits, labels = np.asarray([row], np.float32), np.asarray([label])
    losses, gradient = RUN(logits, labels)
    assert losses[0] >= 0
    assert np.linalg.norm(gradient) <= np.sqrt(2) * (1 + 1e-6)
    assert abs(float(gradient.sum())) < 1e-6
    moved, _ = RUN(logits + np.float32(shift), labels)
    # The shift itself rounds: by half a unit in the last place of the sum.
    np.testing.assert_allclose(moved, losses, atol=4e-3, rtol=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ROWS, ROWS, st.integers(0, 3))
def test_convex(one: list[float], other: list[float], label: int) -> None:
    both = np.asarray([one, other], np.float32)
    middle = (both.sum(0, keepdims=True) / 2).astype(np.float32)
    labels = np.asarray([label, label, label])
    losses, _ = RUN3(np.concatenate([both, middle]), labels)
    assert losses[2] <= (losses[0] + losses[1]) / 2 * (1 + 1e-5) + 1e-2


RUN3 = value_and_grad()


def test_weakness_a_shift_of_all_logits_is_free_without_the_z_loss() -> None:
    logits = jnp.asarray([[8.0, 0.0]])
    labels = jnp.zeros(1, jnp.int32)
    assert cross_entropy(logits + 1024, labels) == cross_entropy(logits, labels)
    assert cross_entropy(logits + 1024, labels, z_weight=1e-4) > 100


def test_strict_promotion_and_rank() -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype in (jnp.float32, jnp.bfloat16):
            logits = jnp.ones((3, 4), dtype)
            for labels in (jnp.zeros(3, jnp.int8), jnp.full((3, 4), 0.25, jnp.float16)):
                jax.eval_shape(
                    value_and_grad(where=jnp.ones(3, bool), label_smoothing=0.1, z_weight=1e-4),
                    logits,
                    labels,
                )


def test_shapes_that_do_not_fit_are_refused() -> None:
    logits = jnp.ones((3, 4))
    with pytest.raises(ValueError, match=r"labels .* integers.* shape \(3,\) here, got \(3, 1\)"):
        cross_entropy(logits, jnp.zeros((3, 1), jnp.int32))
    with pytest.raises(ValueError, match=r"distributions.* shape \(3, 4\) here, got \(3,\)"):
        cross_entropy(logits, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"where must have the shape \(3, 4\), or \(3,\)"):
        cross_entropy(logits, jnp.zeros(3, jnp.int32), where=jnp.ones(4, bool))
    with pytest.raises(TypeError, match="logits must be real floating-point, got int32"):
        cross_entropy(jnp.ones((3, 4), jnp.int32), jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match=r"axis must be in \[-2, 2\)"):
        cross_entropy(logits, jnp.zeros(3, jnp.int32), axis=2)
