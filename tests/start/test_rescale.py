"""Weights that make signals explode are scaled down, and sound ones are left alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from gradstable_gauntlet.task import Disturbance
from gradstable_gauntlet.tasks import TASKS

import gradstable as gs

KEYS = jax.random.split(jax.random.key(0), 8)
X = jax.random.normal(jax.random.key(1), (64, 32))
ONE_HOT = jax.nn.one_hot(jax.random.randint(jax.random.key(2), (64,), 0, 32), 32)


def dense(size: float, *, width: int = 32, count: int = 8) -> list[jax.Array]:
    scale = size / width**0.5
    return [scale * jax.random.normal(key, (width, width)) for key in KEYS[:count]]


def deep(activation: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    def loss(weights: Any, x: jax.Array) -> jax.Array:
        for kernel in weights:
            x = activation(x @ kernel)
        return jnp.mean(x**2)

    return loss


CALM = Disturbance(jnp.ones(()), jnp.ones(()))
TANH, RELU = deep(jnp.tanh), deep(jax.nn.relu)


@pytest.mark.parametrize("x", [X, ONE_HOT, 1e6 * X, 1e-6 * X], ids=["x", "hot", "large", "small"])
@pytest.mark.parametrize(("loss", "size"), [(TANH, 1.0), (RELU, 2.0**0.5)], ids=["LeCun", "He"])
def test_sound_start_passes_bit_for_bit(loss: Any, size: float, x: jax.Array) -> None:
    weights = dense(size)
    start = gs.rescale_start(loss, weights, x)
    assert start.factors == {}
    assert all(old is new for old, new in zip(weights, start.params, strict=True))


@pytest.mark.parametrize("times", [4.0, 1e3, 1e12])
@pytest.mark.parametrize(("loss", "norm"), [(TANH, 1.0), (RELU, 2.0**0.5)], ids=["tanh", "relu"])
def test_every_layer_that_is_too_large_gets_a_gain_of_one(
    loss: Any, norm: float, times: float
) -> None:
    """A ReLU leaves half of the entries, so that weights by He have a gain of one."""
    start = gs.rescale_start(loss, dense(times), X)
    assert len(start.factors) == 8
    assert float(loss(start.params, X)) < 2.0
    for kernel in start.params:
        assert float(jnp.linalg.norm(kernel)) / 32**0.5 == pytest.approx(norm, rel=0.35)
    assert gs.rescale_start(loss, start.params, X).factors == {}


def test_only_the_layer_that_is_too_large_changes() -> None:
    weights = dense(1.0)
    weights[3] = 50.0 * weights[3]
    start = gs.rescale_start(TANH, weights, X)
    assert start.factors.keys() == {"[3]"}
    assert start.factors["[3]"] == pytest.approx(0.02, rel=0.3)
    assert all(start.params[i] is weights[i] for i in range(8) if i != 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_that_overflow_are_found_as_well(dtype: str) -> None:
    weights = [jnp.asarray(kernel, dtype) for kernel in dense(2000.0)]
    start = gs.rescale_start(RELU, weights, jnp.asarray(X, dtype))
    assert all(kernel.dtype == jnp.dtype(dtype) for kernel in start.params)
    loss, gradients = jax.value_and_grad(RELU)(start.params, jnp.asarray(X, dtype))
    assert 0.0 < float(loss) < 10.0
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def recurrent(params: Any, xs: jax.Array) -> jax.Array:
    def cell(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(params["h"] @ h + params["in"] @ x), None

    h, _ = jax.lax.scan(cell, jnp.zeros(32), xs)
    return jnp.mean((h - 1.0) ** 2)


@pytest.mark.parametrize("radius", [2.0, 4.0, 1e3])
def test_a_recurrent_weight_is_limited_by_what_its_signal_grows(radius: float) -> None:
    params = {"h": radius * dense(1.0)[0], "in": dense(1.0)[1]}
    xs = jax.random.normal(jax.random.key(3), (100, 32))
    assert not float(gs.global_norm(jax.grad(recurrent)(params, xs))) < 1e9  # or NaN
    start = gs.rescale_start(recurrent, params, xs)
    assert start.factors.keys() == {"['h']"}
    norm = float(gs.global_norm(jax.grad(recurrent)(start.params, xs)))
    assert 1e-3 < norm < 1e6


def test_layers_of_a_stack_are_scaled_one_by_one() -> None:
    stacked = jnp.stack(dense(1.0)) * jnp.where(jnp.arange(8) == 5, 30.0, 1.0)[:, None, None]

    def loss(params: Any, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(x @ kernel), None

        return jnp.mean(jax.lax.scan(jax.checkpoint(layer), x, params["layers"])[0] ** 2)

    start = gs.rescale_start(loss, {"layers": stacked}, X)
    assert start.factors.keys() == {"['layers'][5]"}
    np.testing.assert_array_equal(start.params["layers"][4], stacked[4])


class Net(linen.Module):
    """Convolutions, a norm with a scale, and a classifier."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = linen.relu(linen.LayerNorm()(linen.Conv(8, (3, 3))(x)))
        return linen.Dense(10)(x.reshape(x.shape[0], -1))


def test_flax_linen() -> None:
    net, images = Net(), jax.random.uniform(KEYS[0], (16, 8, 8, 1))
    labels = jnp.arange(16) % 10

    def loss(variables: Any) -> jax.Array:
        logits = net.apply(variables, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    sound: Any = net.init(KEYS[1], images)
    assert gs.rescale_start(loss, sound).factors == {}
    large = jax.tree.map(lambda leaf: 8.0 * leaf, sound)
    start = gs.rescale_start(loss, large)
    assert {path.split("'")[5] for path in start.factors} == {"kernel", "scale"}
    assert float(loss(start.params)) < 5.0 < float(loss(large))


def test_flax_nnx() -> None:
    model = nnx.Sequential(
        *(nnx.Linear(32, 32, rngs=nnx.Rngs(seed), dtype=jnp.float32) for seed in range(3))
    )
    graph, params = nnx.split(model)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(nnx.merge(graph, params)(x) ** 2)

    assert gs.rescale_start(loss, params, X).factors == {}
    large = jax.tree.map(lambda leaf: 20.0 * leaf, params)
    start = gs.rescale_start(loss, large, X)
    assert len(start.factors) == 3
    assert float(loss(start.params, X)) < 5.0


def test_weights_that_meet_no_signal_are_left_alone() -> None:
    params = {"w": 1e3 * dense(1.0)[0], "temperature": jnp.asarray(100.0), "step": 3, "name": "x"}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        decay = jnp.sum(params["w"] * params["w"]) + jnp.sum(0.5 * params["w"])
        return jnp.mean(x) * params["step"] + 1e-9 * decay

    start = gs.rescale_start(loss, params, X)
    assert start.factors == {}
    assert start.params is not None
    assert start.params["w"] is params["w"]


def test_it_is_refused_inside_jit() -> None:
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda p: gs.rescale_start(TANH, p, X).params)(dense(1.0))


def test_it_takes_a_gain_of_one_or_more() -> None:
    with pytest.raises(ValueError, match="max_gain"):
        gs.rescale_start(TANH, dense(1.0), X, max_gain=0.5)


def test_the_transpose_in_a_gradient_penalty_has_no_gain_of_its_own() -> None:
    kernel = jax.random.normal(KEYS[0], (2, 512)) / 2**0.5

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(jax.grad(lambda x: jnp.sum(jnp.tanh(x @ kernel)))(x) ** 2)

    assert gs.rescale_start(loss, kernel, X[:, :2]).factors == {}
    start = gs.rescale_start(loss, 10.0 * kernel, X[:, :2])
    assert start.factors[""] == pytest.approx(0.1, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TASKS if name != "sines"])
def test_sound_models_are_left_alone(name: str) -> None:
    task = TASKS[name]()
    for seed in range(3):
        key, of_batch = jax.random.split(jax.random.key(seed))
        batch = task.batch(of_batch)
        start = gs.rescale_start(lambda p, batch=batch: task.loss(p, batch, CALM), task.init(key))
        assert start.factors == {}


def test_known_weakness_a_first_layer_that_is_meant_to_be_large() -> None:
    """The frequencies of a fit to sines."""
    task = TASKS["sines"]()
    batch = task.batch(jax.random.key(1))
    start = gs.rescale_start(lambda p: task.loss(p, batch, CALM), task.init(jax.random.key(0)))
    assert start.factors.keys() == {"['in']"}
