"""Losses and arguments that no autopsy can be made of, and losses that are never twice the same."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstable as gs

PARAMS = {"w": jnp.ones(4), "b": jnp.zeros(())}
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"]) ** 2)


def test_donated_parameters_are_named() -> None:
    params = jax.tree.map(jnp.copy, PARAMS)
    step = jax.jit(
        lambda params, x: jax.tree.map(lambda p: p - 1e-2, params), donate_argnames="params"
    )
    step(params, X)
    with pytest.raises(ValueError, match=r"params\['b'\] has been deleted.*pass a copy"):
        gs.autopsy(loss, params, X)


def test_a_deleted_batch_is_named() -> None:
    batch = {"x": jnp.copy(X)}
    batch["x"].delete()
    with pytest.raises(ValueError, match=r"args\[0\]\['x'\] has been deleted"):
        gs.autopsy(lambda p, batch: loss(p, batch["x"]), PARAMS, batch)


@pytest.mark.parametrize("params", [{"w": 1.0}, {"n": jnp.arange(3)}, {}, "weights", None])
def test_parameters_without_an_array_are_refused(params: Any) -> None:
    with pytest.raises(TypeError, match=r"no array of floating-point numbers.*jnp\.asarray"):
        gs.autopsy(lambda p, x: jnp.mean(x), params, X)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(TypeError, match=r"float32 of shape \(6,\); take the mean or the sum"):
        gs.autopsy(lambda p, x: x @ p["w"], PARAMS, X)
    with pytest.raises(TypeError, match=r"int32 of shape \(\)"):
        gs.autopsy(lambda p, x: jnp.sum(x > 0), PARAMS, X)
    with pytest.raises(TypeError, match="got a NoneType; return the loss alone"):
        gs.autopsy(lambda p, x: None, PARAMS, X)


def test_has_aux_the_wrong_way_round_is_told() -> None:
    with pytest.raises(TypeError, match="got a tuple; pass has_aux=True"):
        gs.autopsy(lambda p, x: (loss(p, x), "aux"), PARAMS, X)
    with pytest.raises(TypeError, match="has_aux=True, but loss_fn returned float32 of shape"):
        gs.autopsy(loss, PARAMS, X, has_aux=True)
    with pytest.raises(TypeError, match="the loss is the first of the pair"):
        gs.autopsy(lambda p, x: ("aux", loss(p, x)), PARAMS, X, has_aux=True)


def test_a_loss_with_random_numbers_of_the_host_is_told() -> None:
    rng = np.random.default_rng(0)

    def noisy(params: Any, x: jax.Array) -> jax.Array:
        return loss(params, x) + rng.normal()  # here

    found = gs.autopsy(noisy, PARAMS, X)
    assert __file__ in found.impure
    assert "not the same for the same arguments" in str(found)
    dropped = gs.autopsy(lambda p, x: loss(p, x * (rng.random(4) < 0.5)), PARAMS, X)
    assert dropped.impure


def test_a_loss_that_counts_its_calls_is_told() -> None:
    calls: list[int] = []

    def breaks_once(params: Any, x: jax.Array) -> jax.Array:
        calls.append(1)
        value = loss(params, x)
        return jnp.log(value - value) if len(calls) == 1 else value

    found = gs.autopsy(breaks_once, PARAMS, X)
    assert found.impure
    assert str(found).splitlines()[-1].startswith("The loss is not the same")


def test_a_loss_that_uses_something_up_is_told() -> None:
    noise = iter([1.0])
    found = gs.autopsy(lambda p, x: loss(p, x) + next(noise), PARAMS, X)
    assert found.impure == "a second call, which raised StopIteration"


def test_a_callback_that_returns_something_else_is_told() -> None:
    rng = np.random.default_rng(0)

    def noisy(params: Any, x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        noise = jax.pure_callback(lambda: np.float32(rng.normal()), shape)
        return loss(params, x) + noise

    assert gs.autopsy(noisy, PARAMS, X).impure == "a callback"

    def fixed(params: Any, x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return loss(params, x) + jax.pure_callback(lambda: np.float32(1.0), shape)

    assert gs.autopsy(fixed, PARAMS, X).impure == ""


def test_a_loss_that_is_the_same_is_not_accused() -> None:
    @jax.custom_vjp
    def own(x: jax.Array) -> jax.Array:
        return jnp.sin(x)

    own.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    mask = np.asarray([1.0, np.nan, 2.0, -np.inf], np.float32)

    def pure(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, 0.5, x.shape)
        x = jnp.where(keep, jax.checkpoint(own)(x), jnp.where(jnp.isfinite(mask), mask, 0.0))
        x, _ = jax.lax.scan(lambda h, k: (h + jax.random.normal(k), None), x, jax.random.split(key))
        return loss(params, jax.lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, x))

    assert gs.autopsy(pure, PARAMS, X, jax.random.key(0)).impure == ""
