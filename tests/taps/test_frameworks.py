"""Taps in models of Flax, and the maxima of heads on their way to ``qk_clip``."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

import gradstable as gs

X = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)


class Block(linen.Module):
    """One layer in a scan."""

    @linen.compact
    def __call__(self, x: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
        return gs.tap("block", jnp.tanh(linen.Dense(3)(x)), layer=layer, layers=4), None


class Net(linen.Module):
    """Layers in a scan that are computed again in the backward pass, and a jitted head."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        split: Any = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        scan = linen.scan(linen.remat(Block), length=4, in_axes=0, **split)
        x, _ = scan()(x, jnp.arange(4))
        return linen.jit(linen.Dense)(2)(gs.tap("features", x))


def test_linen_with_scan_and_remat() -> None:
    net = Net()
    params = net.init(jax.random.key(0), X)
    loss_fn = lambda params: jnp.mean(net.apply(params, X) ** 2)  # noqa: E731
    found = gs.taps.read(jax.jit(gs.taps.value_and_grad(loss_fn))(params)[1])
    assert sorted(found) == ["block/0", "block/1", "block/2", "block/3", "features"]
    assert all(one["forward"]["calls"] == 1 for one in found.values())
    assert found["block/3"]["forward"]["rms"] == found["features"]["forward"]["rms"]


class Model(nnx.Module):
    """A layer, statistics of its batch, and a head."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(gs.tap("normed", self.norm(self.first(x))))


def test_nnx_with_statistics_of_the_batch() -> None:
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gs.guard(optax.adam(1e-2)), wrt=nnx.Param)

    @nnx.jit
    def train_step(model: Model, optimizer: nnx.Optimizer) -> Any:
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss_fn(params: Any) -> Any:
            merged = nnx.merge(graph, params, rest, copy=True)
            loss = jnp.mean((merged(X) - 1.0) ** 2)
            return loss, nnx.state(merged, nnx.Not(nnx.Param))

        ((loss, rest), grads), taps = gs.taps.value_and_grad(loss_fn, has_aux=True)(params)
        nnx.update(model, rest)
        optimizer.update(model, grads)
        return loss, taps

    losses = []
    for _ in range(3):
        loss, taps = train_step(model, optimizer)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert abs(gs.taps.read(taps)["normed"]["forward"]["rms"] - 1.0) < 0.05
    assert float(jnp.max(jnp.abs(model.norm.mean[...]))) > 0


def test_nnx_model_as_the_argument() -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    loss_fn = lambda model: jnp.mean(gs.tap("out", model(X)) ** 2)  # noqa: E731
    (loss, _), taps = nnx.jit(lambda model: gs.taps.value_and_grad(loss_fn)(model))(model)
    assert gs.taps.read(taps)["out"]["forward"]["rms"] ** 2 == pytest.approx(float(loss))
