"""The norm of the gradient of each term of a loss."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs


def loss_fn(params: Any, x: jax.Array) -> dict[str, jax.Array]:
    h = jnp.tanh(x @ params["w"])
    return {
        "fit": jnp.mean((h - 1.0) ** 2),
        "penalty": 0.1 * jnp.sum(params["w"] ** 2),
        "of_bias": jnp.sum(params["b"] ** 4),
    }


PARAMS = {"w": jnp.arange(6.0).reshape(3, 2) / 5, "b": jnp.array([2.0, -1.0])}
X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def test_gradient_is_that_of_the_sum_and_norms_are_those_of_each() -> None:
    (values, gradient), norms = jax.jit(gs.taps.terms(loss_fn))(PARAMS, X)
    chex.assert_trees_all_close(values, loss_fn(PARAMS, X), rtol=1e-6)
    whole = jax.grad(lambda p: sum(loss_fn(p, X).values()))(PARAMS)
    chex.assert_trees_all_close(gradient, whole, rtol=1e-5)
    for name, norm in norms.items():
        alone = jax.grad(lambda p, name=name: loss_fn(p, X)[name])(PARAMS)
        np.testing.assert_allclose(norm, optax.tree.norm(alone), rtol=1e-5)
    assert set(norms) == set(values)


def test_norms_of_some_steps_only_without_recompiling() -> None:
    @jax.jit
    @chex.assert_max_traces(1)
    def step_fn(params: Any, step: jax.Array) -> Any:
        return gs.taps.terms(loss_fn, when=step % 2 == 0)(params, X)

    (_, on), norms = step_fn(PARAMS, jnp.int32(0))
    (_, off), unknown = step_fn(PARAMS, jnp.int32(1))
    chex.assert_trees_all_equal(on, off)
    assert all(map(np.isfinite, norms.values()))
    assert all(map(np.isnan, unknown.values()))


def test_several_arguments() -> None:
    (_, gradient), _ = gs.taps.terms(loss_fn, argnums=(0, 1))(PARAMS, X)
    assert isinstance(gradient, tuple)
    assert gradient[1].shape == X.shape


def test_norm_does_not_overflow() -> None:
    _, norms = gs.taps.terms(lambda w: {"huge": jnp.sum(w * 1e30)})(jnp.ones(4))
    assert norms["huge"] == pytest.approx(2e30)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda w: jnp.sum(w), "must return a dictionary of scalars"),
        (lambda w: {}, "must return a dictionary of scalars"),
        (lambda w: {"fit": w}, r"term 'fit' has shape \(3,\)"),
        (lambda w: {"n": jnp.sum(w).astype(int)}, "term 'n' has shape .* dtype int32"),
    ],
)
def test_other_losses_are_refused(bad: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        gs.taps.terms(bad)(jnp.ones(3))
