"""Penalties on weights, their masks, and their arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs

l1, l2 = gs.losses.l1_penalty, gs.losses.l2_penalty

PARAMS = {
    "dense": {"kernel": jnp.asarray([[1.0, -2.0], [0.0, 3.0]]), "bias": jnp.asarray([5.0, -7.0])},
    "norm": {"scale": jnp.asarray(11.0)},
}


@jax.jit
def both(params: Any) -> Any:
    return [
        jax.value_and_grad(penalty)(params, weight=0.1, mask=gs.losses.kernels_only)
        for penalty in (l1, l2)
    ]


def test_values_and_gradients() -> None:
    (one, by_one), (two, by_two) = both(PARAMS)
    np.testing.assert_allclose([one, two], [0.6, 0.7], rtol=1e-6)
    kernel = PARAMS["dense"]["kernel"]
    np.testing.assert_allclose(by_one["dense"]["kernel"], 0.1 * np.sign(kernel), rtol=1e-6)
    np.testing.assert_allclose(by_two["dense"]["kernel"], 0.1 * kernel, rtol=1e-6)
    for gradient in (by_one, by_two):
        assert (gradient["dense"]["bias"] == 0).all()
        assert gradient["norm"]["scale"] == 0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, 29.0),
        (gs.losses.kernels_only, 6.0),
        ({"dense": {"kernel": False, "bias": True}, "norm": {"scale": False}}, 12.0),
        ({"dense": True, "norm": False}, 18.0),
        (lambda params: jax.tree.map(lambda leaf: leaf.ndim == 0, params), 11.0),
        ({"dense": False, "norm": False}, 0.0),
    ],
)
def test_masks(mask: Any, expected: float) -> None:
    np.testing.assert_allclose(l1(PARAMS, weight=1.0, mask=mask), expected)


def test_kernels_only_goes_by_names_and_dimensions() -> None:
    params = {
        "embed": {"embedding": jnp.ones((9, 4))},
        "layers": {"mlp": {"kernel": jnp.ones((3, 4, 4)), "bias": jnp.ones((3, 4))}},
        "norm": {"scale": jnp.ones((3, 4))},
        "custom": jnp.ones((2, 2)),
        "temperature": jnp.ones(()),
    }
    found = gs.losses.kernels_only(params)
    kept = [
        jax.tree_util.keystr(p) for p, keep in jax.tree_util.tree_leaves_with_path(found) if keep
    ]
    assert kept == ["['custom']", "['layers']['mlp']['kernel']"]


@pytest.mark.parametrize("size", [1e-42, 1e-20, 1e-10, 1e10, 1e20, 3e24])
def test_pitfall_l2_overflows_only_where_the_result_does(size: float) -> None:
    """``0.5 * weight * sum(w ** 2)`` is infinite from 1.8e19 on, whatever the weight."""
    w = jnp.asarray([3.0, 4.0], jnp.float32) * size
    value, gradient = L2_OF_LARGE(w)
    np.testing.assert_allclose(gradient, 1e-12 * w, rtol=1e-5, atol=1e-44)
    # A value below 1e-38 is zero; its gradient is not.
    np.testing.assert_allclose(value, 0.5e-12 * (25 * size) * size, rtol=1e-5, atol=1e-38)


L2_OF_LARGE = jax.jit(jax.value_and_grad(lambda w: l2({"w": w}, weight=1e-12)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_summed_in_float32(dtype: str) -> None:
    w = jnp.full((70_000,), 2.0, dtype)
    assert l2(w, weight=1.0) == 140_000
    assert l1(w, weight=0.5) == 70_000
    gradient = jax.grad(lambda w: l2(w, weight=0.25))(w[:3])
    assert gradient.dtype == w.dtype
    assert gradient.tolist() == [0.5, 0.5, 0.5]


def test_trees_without_weights() -> None:
    assert l2({}, weight=1.0) == 0
    assert l1({"frozen": None, "empty": jnp.ones((0, 3))}, weight=1.0) == 0
    assert gs.losses.kernels_only({"frozen": None}) == {"frozen": None}


def test_integers_are_refused_unless_they_are_masked() -> None:
    params = {"steps": jnp.ones(2, jnp.int32), "w": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"params\['steps'\] must be real floating-point"):
        l2(params, weight=1.0)
    assert l2(params, weight=1.0, mask={"steps": False, "w": True}) == 1.0


def test_mask_of_another_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="dense"):
        l1(PARAMS, weight=1.0, mask={"norm": True})


def test_l2_equals_the_weight_decay_of_sgd() -> None:
    w = PARAMS["dense"]["kernel"]
    tx = optax.add_decayed_weights(0.1)
    decayed, _ = tx.update(jnp.zeros_like(w), tx.init(w), w)
    slope = jax.grad(lambda w: l2(w, weight=0.1))(w)
    np.testing.assert_allclose(slope, np.asarray(decayed), rtol=1e-6)


def test_weakness_adam_pulls_large_weights_no_harder() -> None:
    w = jnp.asarray([1.0, 100.0])
    tx = gs.moments.scale_by_adam()
    updates, _ = tx.update(jax.grad(lambda w: l2(w, weight=0.1))(w), tx.init(w))
    np.testing.assert_allclose(np.asarray(updates), [1.0, 1.0], rtol=1e-5)


def test_weakness_l1_leaves_no_weight_at_zero() -> None:
    """It swings around zero by the learning rate times the weight of the penalty."""
    slope = jax.grad(lambda w: l1(w, weight=0.3))

    def body(w: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return w - 0.1 * slope(w), w

    _, path = jax.lax.scan(body, jnp.asarray(0.1), None, length=50)
    assert (path != 0).all()
    assert jnp.abs(path[10:]).max() <= 0.1 * 0.3


def test_strict_promotion() -> None:
    params = {"a": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.ones(3), "c": jnp.ones((), jnp.float16)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(both, params)
