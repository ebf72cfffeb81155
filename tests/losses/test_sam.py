"""SAM: the ascent, the gradient at its end, and what happens where there is none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles.losses import sam_ascent as oracle

sam_ascent, sam_gradients = gs.losses.sam_ascent, gs.losses.sam_gradients

RNG = np.random.default_rng(0)
W, G = RNG.normal(size=8).astype(np.float32), RNG.normal(size=8).astype(np.float32)


def split(values: np.ndarray) -> Any:
    return {"a": jnp.asarray(values[:6]).reshape(2, 3), "b": [jnp.asarray(values[6:7]), values[7]]}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 6e37])
def test_ascent_equals_the_oracle(adaptive: bool, size: float) -> None:
    g = G * np.float32(size)
    found = ASCEND[adaptive](split(W), split(g))
    expected = split(oracle(W, g, rho=0.3, adaptive=adaptive))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)


def test_pitfall_a_huge_gradient_is_not_flushed_outside_of_jit() -> None:
    """XLA divides by a number above 2**126 as it multiplies by its reciprocal: by zero."""
    found = sam_ascent(jnp.zeros(2), jnp.asarray([6e37, 8e37]), rho=1.0)
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)


ASCEND = {
    adaptive: jax.jit(lambda w, g, a=adaptive: sam_ascent(w, g, rho=0.3, adaptive=a))
    for adaptive in (False, True)
}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf, 1e-42])
def test_pitfall_no_ascent_where_the_gradient_has_no_direction(bad: float, adaptive: bool) -> None:
    g = np.full(8, bad, np.float32) if abs(bad) < 1 else np.where(np.arange(8) == 3, bad, G)
    found = ASCEND[adaptive](split(W), split(g.astype(np.float32)))
    jax.tree.map(np.testing.assert_array_equal, found, split(W))


def loss(params: Any) -> jax.Array:
    return jnp.sum(jnp.cosh(params["a"])) + jnp.sum(params["a"][0] * params["b"]) ** 2


PARAMS = {"a": jnp.asarray(W[:6]).reshape(2, 3), "b": jnp.asarray(G[:3])}


@pytest.fixture(scope="module")
def sam() -> Any:
    return jax.jit(lambda params: sam_gradients(loss, params, rho=0.2))


def test_gradients_are_those_at_the_end_of_the_ascent(sam: Any) -> None:
    value, gradients = sam(PARAMS)
    point = sam_ascent(PARAMS, jax.grad(loss)(PARAMS), rho=0.2)
    expected, at_point = jax.value_and_grad(loss)(point)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), gradients, at_point)


def test_equals_optax_sam_in_one_step(sam: Any) -> None:
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.2))
    reference = optax.contrib.sam(optax.sgd(1.0), ascent, sync_period=2, opaque_mode=True)

    @jax.jit
    def step(params: Any) -> Any:
        slope = jax.grad(loss)
        state = reference.init(params)
        return reference.update(slope(params), state, params, grad_fn=lambda p, _: slope(p))[0]

    _, gradients = sam(PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, -y, rtol=1e-5), gradients, step(PARAMS))


def test_without_a_way_it_is_the_plain_gradient() -> None:
    value, gradients = sam_gradients(loss, PARAMS, rho=0.0)
    expected, plain = jax.value_and_grad(loss)(PARAMS)
    assert value == expected
    jax.tree.map(np.testing.assert_array_equal, gradients, plain)


def test_weakness_the_value_is_above_the_loss_by_rho_times_the_norm() -> None:
    slope = jax.grad(loss)(PARAMS)
    value, _ = sam_gradients(loss, PARAMS, rho=1e-3)
    rise = value - loss(PARAMS)
    np.testing.assert_allclose(rise, 1e-3 * gs.global_norm(slope), rtol=0.05)


def test_aux_is_that_of_the_second_call() -> None:
    def with_aux(params: Any) -> tuple[jax.Array, Any]:
        return loss(params), {"seen": params["b"], "count": jnp.asarray(3)}

    (value, aux), gradients = jax.jit(lambda p: sam_gradients(with_aux, p, has_aux=True))(PARAMS)
    point = sam_ascent(PARAMS, jax.grad(loss)(PARAMS))
    np.testing.assert_allclose(aux["seen"], point["b"], rtol=1e-6)
    assert aux["count"] == 3
    np.testing.assert_allclose(value, loss(point), rtol=1e-6)
    assert jax.tree.structure(gradients) == jax.tree.structure(PARAMS)


def test_pitfall_a_bad_batch_is_reported_as_it_is_and_rejected() -> None:
    """optax.contrib.sam goes to NaN and stays there: its ascent is part of the parameters."""

    def of(batch: jax.Array) -> Any:
        return sam_gradients(lambda w: jnp.sum((w - batch) ** 2), jnp.ones(2))

    value, gradients = of(jnp.asarray([jnp.nan, 0.0]))
    assert jnp.isnan(value)
    assert jnp.isnan(gradients[0])
    assert gradients[1] == 2.0
    tx = gs.guard(optax.sgd(0.1))
    updates, _ = tx.update(gradients, tx.init(jnp.ones(2)), jnp.ones(2))
    assert optax.apply_updates(jnp.ones(2), updates).tolist() == [1, 1]

    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.sgd(0.1), ascent)
    w, state = jnp.ones(2), theirs.init(jnp.ones(2))
    for slope in (gradients, jnp.ones(2), jnp.ones(2)):
        updates, state = theirs.update(slope, state, w)
        w = optax.apply_updates(w, updates)
    assert jnp.isnan(w).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_ascends_in_float32(dtype: str) -> None:
    w = jnp.asarray([1.0, 2.0], dtype)
    g = jnp.asarray([3e4, 4e4], dtype)  # the square overflows float16
    found = sam_ascent(w, g, rho=0.5)
    assert found.dtype == w.dtype
    np.testing.assert_allclose(np.asarray(found, float), [1.3, 2.4], rtol=4e-3)


def test_weakness_in_bfloat16_the_way_is_too_short_to_be_taken() -> None:
    w = jnp.ones(10_000, jnp.bfloat16)
    assert (sam_ascent(w, w) == w).all()
    assert (sam_ascent(w.astype(jnp.float32), w) != 1).all()


def test_what_does_not_fit_is_refused_by_path() -> None:
    with pytest.raises(ValueError, match=r"gradients\['b'\] has shape \(2,\).*params\['b'\]"):
        sam_ascent({"b": jnp.ones(3)}, {"b": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"params\['n'\] must be real floating-point, got int32"):
        sam_gradients(lambda p: p["w"], {"w": jnp.ones(()), "n": jnp.ones((), jnp.int32)})
    with pytest.raises(TypeError, match=r"gradients must be real floating-point, got complex64"):
        sam_ascent(jnp.ones(3), jnp.ones(3, jnp.complex64))


def test_strict_promotion() -> None:
    params = {"a": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.ones(3), "c": jnp.ones((), jnp.float16)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for ascend in ASCEND.values():
            found = jax.eval_shape(ascend, params, jax.tree.map(jnp.float32, params))
            assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, params)


def test_trees_with_nothing_in_places() -> None:
    params = {"frozen": None, "w": jnp.ones(2)}
    found = sam_ascent(params, {"frozen": None, "w": jnp.ones(2)})
    assert found["frozen"] is None
    assert sam_ascent({}, {}) == {}
