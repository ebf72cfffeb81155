"""Gradient penalties: values, gradients by the parameters, and what they cannot see."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.oracles import losses as oracle

RNG = np.random.default_rng(0)
PARAMS = {
    "w": RNG.normal(size=(5, 3)),
    "b": RNG.normal(size=5),
    "a": 2 * RNG.normal(size=5),
}
REAL, FAKE = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3)) + 1
KEY = jax.random.key(3)


def critic(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["w"].T + params["b"]) @ params["a"]


def in_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def mixed() -> np.ndarray:
    """Return the samples at which ``wgan_gp`` looks."""
    share = np.asarray(jax.random.uniform(KEY, (len(REAL),)), np.float64)[:, None]
    return share * REAL + (1 - share) * FAKE


def gradient_penalty(params: Any, **options: Any) -> jax.Array:
    batches = in_float32({"real": REAL, "fake": FAKE})
    return gs.losses.wgan_gp(lambda x: critic(params, x), **batches, key=KEY, **options)


PENALTIES = {
    "wgan_gp": (gradient_penalty, lambda p: oracle.wgan_gp(p, mixed())),
    "one-sided": (
        lambda p: gradient_penalty(p, one_sided=True, center=2.0, weight=3.0),
        lambda p: oracle.wgan_gp(p, mixed(), one_sided=True, center=2.0, weight=3.0),
    ),
    "zero-centered": (
        lambda p: gradient_penalty(p, center=0.0),
        lambda p: 10.0 * oracle.squared_slope(p, mixed()),
    ),
    "r1": (
        lambda p: gs.losses.r1(lambda x: critic(p, x)[:, None], in_float32(REAL)),
        lambda p: 5.0 * oracle.squared_slope(p, REAL),
    ),
    "r2": (
        lambda p: gs.losses.r2(lambda x: critic(p, x), in_float32(FAKE), weight=2.0),
        lambda p: 1.0 * oracle.squared_slope(p, FAKE),
    ),
    "input_gradient": (
        lambda p: gs.losses.input_gradient(lambda x: critic(p, x), in_float32(REAL), weight=0.3),
        lambda p: 0.3 * oracle.squared_slope(p, REAL),
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_value_and_gradient_equal_the_float64_oracle(name: str) -> None:
    ours, theirs = PENALTIES[name]
    value, gradient = jax.jit(jax.value_and_grad(ours))(in_float32(PARAMS))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, theirs(PARAMS), rtol=1e-5)
    expected = oracle.by_differences(theirs, PARAMS)
    for leaf, found in gradient.items():
        np.testing.assert_allclose(found, expected[leaf], rtol=2e-4, atol=1e-4, err_msg=leaf)


def test_one_sided_below_its_center_is_zero() -> None:
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: gradient_penalty(p, one_sided=True, center=100.0))
    )(in_float32(PARAMS))
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@jax.jit
@jax.value_and_grad
def linear(w: jax.Array) -> jax.Array:
    batch = {"real": jnp.ones((4, 2)), "fake": jnp.zeros((4, 2))}
    return gs.losses.wgan_gp(lambda x: x @ w, **batch, key=KEY)


def test_pitfall_the_norm_has_a_finite_gradient_at_zero() -> None:
    """The weakness as well: a slope of zero costs the weight, and nothing says where to go."""
    value, gradient = linear(jnp.zeros(2))
    assert value == 10.0
    assert gradient.tolist() == [0.0, 0.0]
    plain = jax.grad(lambda w: (jnp.linalg.norm(w) - 1) ** 2)(jnp.zeros(2))
    assert jnp.isnan(plain).all()


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-20, 1e-10, 1.0, 1e15, 1e18, 1e25, 2e36, 6e37])
def test_pitfall_no_slope_makes_the_gradient_nan(size: float) -> None:
    """It is infinite only where it truly is: 20 times a slope of 3e38."""
    _, gradient = linear(jnp.asarray([3.0, 4.0], jnp.float32) * size)
    assert not jnp.isnan(gradient).any()
    if size >= 1e-30:
        with np.errstate(over="ignore"):
            expected = (20 * (5 * size - 1) * np.asarray([0.6, 0.8])).astype(np.float32)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_inputs_are_summed_in_float32(dtype: str) -> None:
    w = jnp.full((64,), 100.0, dtype)
    value = gs.losses.r1(lambda x: x @ w, jnp.ones((4, 64), dtype), weight=1.0)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.5 * 64 * 1e4)  # more than float16 holds


def test_a_tree_of_inputs_is_one_sample() -> None:
    batch = {"image": jnp.ones((4, 2, 3)), "label": jnp.ones((4,))}

    def score(x: Any) -> jax.Array:
        return 3 * x["image"][:, 0, 0] + 4 * x["label"]

    found = jax.jit(lambda: gs.losses.wgan_gp(score, batch, fake=batch, key=KEY))()
    np.testing.assert_allclose(found, 160.0, rtol=1e-6)


def test_samples_that_see_each_other_are_not_judged_alone() -> None:
    """BatchNorm subtracts the mean: the sum of scores does not depend on the inputs at all."""
    coupled = gs.losses.r1(lambda x: (x - x.mean(0)) @ jnp.ones(3), in_float32(REAL))
    assert coupled < 1e-6


def test_weakness_r1_does_not_see_between_the_samples() -> None:
    def score(x: jax.Array) -> jax.Array:
        return jnp.tanh(50 * x[:, 0])

    real = jnp.asarray([[-1.0], [1.0]])
    assert gs.losses.r1(score, real) < 1e-30
    assert jax.grad(lambda x: score(x).sum())(jnp.zeros((1, 1))) == 50


def test_weakness_a_saturated_loss_hides_its_slope() -> None:
    def loss(x: jax.Array) -> jax.Array:
        return gs.losses.sigmoid_binary_cross_entropy(x[:, 0], jnp.ones(1))

    found = gs.losses.input_gradient(loss, jnp.full((1, 1), 20.0), weight=1.0)
    np.testing.assert_allclose(jnp.sqrt(found), 2e-9, rtol=0.05)


def test_pitfall_a_mean_in_the_critic_is_refused() -> None:
    batch = jnp.ones((4, 2))
    with pytest.raises(
        ValueError, match=r"critic must return one number .* 4 samples.*do not take their mean"
    ):
        gs.losses.r1(lambda x: x.mean(), batch)
    with pytest.raises(ValueError, match=r"loss_fn must return .* got \(4, 2\)"):
        gs.losses.input_gradient(lambda x: x, batch, weight=1.0)


def test_inputs_that_do_not_fit_are_refused_by_path() -> None:
    batch = {"x": jnp.ones((4, 2))}
    with pytest.raises(ValueError, match=r"fake\['x'\] has shape \(4, 3\).*real\['x'\]"):
        gs.losses.wgan_gp(lambda x: x, batch, fake={"x": jnp.ones((4, 3))}, key=KEY)
    with pytest.raises(TypeError, match=r"inputs\['x'\] must be real floating-point, got int32"):
        gs.losses.r1(lambda x: x, {"x": jnp.ones((4, 2), jnp.int32)})
    with pytest.raises(ValueError, match=r"samples along their first axis.*\['y'\]: \(3,\)"):
        gs.losses.r1(lambda x: x, {"x": jnp.ones((4, 2)), "y": jnp.ones(3)})
    with pytest.raises(ValueError, match="samples along their first axis"):
        gs.losses.r1(lambda x: x, jnp.ones(()))


def test_no_samples_are_no_penalty() -> None:
    assert gs.losses.r1(lambda x: x[:, 0], jnp.ones((0, 2))) == 0
    batch = {"real": jnp.ones((0, 2)), "fake": jnp.ones((0, 2))}
    assert gs.losses.wgan_gp(lambda x: x[:, 0], **batch, key=KEY) == 0


@pytest.mark.parametrize("penalized", [True, False])
def test_a_critic_explodes_without_the_penalty_and_not_with_it(penalized: bool) -> None:
    """Gradient ascent on a Wasserstein critic with a ReLU layer: its slope has no bound."""
    real, fake = in_float32(REAL), in_float32(FAKE)

    def score(params: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ params["w"].T + params["b"]) @ params["a"]

    def loss(params: Any, key: jax.Array) -> jax.Array:
        def of(x: jax.Array) -> jax.Array:
            return score(params, x)

        gap = jnp.mean(of(fake)) - jnp.mean(of(real))
        return gap + penalized * gs.losses.wgan_gp(of, real, fake=fake, key=key)

    tx = optax.adam(0.05, b1=0.0, b2=0.9)

    def body(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, key), state)
        slope = jnp.sqrt(gs.losses.r1(lambda x: score(params, x), real, weight=2.0))
        return (optax.apply_updates(params, updates), state), slope

    params = in_float32(PARAMS)
    keys = jax.random.split(KEY, 300)
    _, slopes = jax.jit(lambda p: jax.lax.scan(body, (p, tx.init(p)), keys))(params)
    if penalized:
        assert slopes[-1] < 3
    else:
        assert slopes[-1] > 300
