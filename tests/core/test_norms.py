"""The norm is right where others overflow, underflow or lose count."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradstable as gs
from gradstable._src.core import norms
from gradstable._src.core.norms import measure


def exact_norm(tree: Any) -> float:
    """Return the norm in float64 of the values that the leaves hold."""
    leaves = [np.abs(np.asarray(x).astype(np.complex128)) for x in jax.tree.leaves(tree)]
    largest = max((float(x.max()) for x in leaves if x.size), default=0.0)
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(sum(np.sum((x / largest) ** 2) for x in leaves)))


def f32(*values: float) -> np.ndarray:
    # NumPy keeps subnormals, which jnp.array(...) * 1 would flush.
    return np.asarray(values, np.float32)


HARD = {
    "fp16 [300, 300]": np.asarray([300, 300], np.float16),
    "fp16 small": np.asarray([1e-4] * 4, np.float16),
    "fp16 subnormal": np.asarray([6e-8, 1e-5], np.float16),
    "fp32 [1e20, 1e20]": f32(1e20, 1e20),
    "fp32 3e38": f32(3e38),
    "fp32 just representable": f32(2.3e38, 2e38),
    "fp32 1e-25": f32(*[1e-25] * 7),
    "fp32 subnormals": f32(1e-45, 3e-41, 2e-39, 1.2e-38),
    "fp32 smallest": f32(1e-45),
    "fp32 1e-19, where squares underflow": f32(*[1e-19] * 100),
    "bf16 1e38": jnp.asarray([1e38, 1e38], jnp.bfloat16),
    "bf16 subnormals": jnp.asarray([1e-40, 2e-39], jnp.bfloat16),
    "1,000 bf16 leaves": [jnp.full((7,), 0.3, jnp.bfloat16)] * 1000,
    "1,000 leaves of different shapes": [
        np.full((i % 8 + 1,), 1e-3, np.float16) for i in range(1000)
    ],
    "huge and tiny leaves": {"a": f32(1e30), "b": f32(1e-30), "c": f32(1.0)},
    "a large leaf": np.random.default_rng(0).normal(size=(1500, 1000)).astype(np.float32),
    "a large leaf of 1e25": np.full((1500, 1000), 1e25, np.float32),
    "complex": np.asarray([3e20 + 4e20j], np.complex64),
    "all zero": f32(0, 0, 0),
    "empty tree": {},
    "None, zero-size and 0-d": {"n": None, "z": np.zeros((0, 3), np.float32), "s": np.float32(2)},
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", HARD)
def test_norm_within_1e5_of_float64(case: str, jit: bool) -> None:
    tree = HARD[case]
    norm = (jax.jit(gs.global_norm) if jit else gs.global_norm)(tree)
    assert norm.dtype == jnp.float32
    assert norm.shape == ()
    np.testing.assert_allclose(np.float64(norm), exact_norm(tree), rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_leaf_norms_in_tree_order(scale: float) -> None:
    leaves = [
        np.full(shape, value * scale, np.float32)
        for value, shape in ((2, (4,)), (7, (300, 100)), (3, (2, 2)), (5, (4,)), (1, ()))
    ]
    expected = [exact_norm(leaf) for leaf in leaves]
    np.testing.assert_allclose(measure(leaves).leaf_norms, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leaf", [0, 1, 2])
def test_first_non_finite_leaf_is_found(bad: float, leaf: int) -> None:
    leaves = [np.ones((3,), np.float32), np.ones((200, 100), np.float32), np.ones((), np.float32)]
    for broken in range(leaf, 3):
        leaves[broken].reshape(-1)[-1] = bad
    measured = jax.jit(measure)(leaves)
    assert not measured.finite
    assert measured.worst_leaf == leaf
    np.testing.assert_array_equal(measured.nonfinite, np.arange(3) >= leaf)
    assert not np.isfinite(measured.norm)


def test_finite_gradient_beyond_float32_is_finite() -> None:
    measured = measure([jnp.full((100,), 3e38)])
    assert measured.finite
    assert measured.norm == jnp.inf


def test_nan_is_counted_however_many() -> None:
    # An int32 count of NaN entries would wrap to zero at 2**32 of them; a flag cannot.
    measured = jax.eval_shape(measure, [jax.ShapeDtypeStruct((2**17, 2**16), jnp.bfloat16)])
    assert measured.nonfinite.dtype == jnp.bool_


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=2, max_side=9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_any_finite_array(array: np.ndarray) -> None:
    expected = exact_norm(array)
    norm = np.float64(gs.global_norm(array))
    if expected > float(np.finfo(np.float32).max):
        assert norm == np.inf or norm == pytest.approx(expected, rel=1e-5)
    else:
        np.testing.assert_allclose(norm, expected, rtol=1e-5, atol=1e-45)


@given(st.integers(-120, 100), st.permutations(range(5)))
def test_scales_and_does_not_depend_on_leaf_order(exponent: int, order: list[int]) -> None:
    leaves = [np.float32(i + 1) * np.float32(2.0**exponent) for i in range(5)]
    norm = np.float64(gs.global_norm([leaves[i] for i in order]))
    np.testing.assert_allclose(norm, np.sqrt(55.0) * 2.0**exponent, rtol=1e-6)


def test_healthy_gradients_never_take_the_rare_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rare ways read the gradients twice; they are for norms that squaring cannot bear."""
    ways: list[Any] = []
    switch = norms.lax.switch

    def spy(way: Any, branches: Any) -> Any:
        ways.append(way)
        return switch(way, branches)

    @jax.jit
    def way_of(leaf: jax.Array) -> Any:
        measure([leaf])
        return ways[-1]

    monkeypatch.setattr(norms.lax, "switch", spy)
    for exponent in range(-30, 62):
        assert way_of(jnp.full((10,), 2.0**exponent)) == 0
    assert way_of(jnp.full((10,), 2.0**-40)) == 1
    assert way_of(jnp.full((10,), 2.0**64)) == 1


def test_axis_name_reduces_over_vmap() -> None:
    shards = jnp.asarray([[3e20, 0.0], [0.0, 4e20]])
    norm = jax.vmap(lambda g: gs.global_norm(g, axis_name="shards"), axis_name="shards")(shards)
    np.testing.assert_allclose(np.asarray(norm, np.float64), [5e20, 5e20], rtol=1e-6)
    bad = shards.at[1, 0].set(jnp.nan)
    finite = jax.vmap(lambda g: measure(g, axis_name="shards").finite, axis_name="shards")(bad)
    assert not finite.any()
