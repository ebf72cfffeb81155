"""Noise has the variance of the paper, in every dtype, and is the same for the same key."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs


def run(tx: optax.GradientTransformation, g: Any, steps: int) -> Any:
    """Return the updates of some equal gradients, stacked."""
    return _scan(tx.update, steps)(tx.init(g), g)


@functools.lru_cache
def _scan(update: Callable[..., Any], steps: int) -> Callable[..., Any]:
    def run(state: Any, g: Any) -> Any:
        def body(state: Any, _: None) -> tuple[Any, Any]:
            updates, state = update(g, state)
            return state, updates

        return jax.lax.scan(body, state, None, length=steps)[1]

    return jax.jit(run)


def test_variance_fades_as_in_the_paper() -> None:
    eta, gamma, steps = 0.3, 0.55, 6
    noise = np.asarray(run(gs.clipping.add_noise(eta, gamma=gamma), jnp.zeros(40_000), steps))
    expected = [(eta / (1 + t) ** gamma) ** 0.5 for t in range(steps)]
    np.testing.assert_allclose(noise.std(axis=1), expected, rtol=0.02)
    assert (np.abs(noise.mean(axis=1)) < 0.01).all()
    assert np.abs(np.corrcoef(noise) - np.eye(steps)).max() < 0.02


def test_equals_optax_in_float32() -> None:
    g = {"a": jnp.linspace(0.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(())}
    ours = run(gs.clipping.add_noise(0.01, key=3), g, 5)
    theirs = run(optax.add_noise(0.01, 0.55, key=jax.random.key(3)), g, 5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), ours, theirs)


def test_pitfall_noise_in_low_precision_is_drawn_in_float32() -> None:
    """Drawn in bfloat16, noise has 128 values, of which none is beyond 2.9."""
    g = jnp.zeros(400_000, jnp.bfloat16)
    theirs = np.asarray(run(optax.add_noise(1.0, 0.0, key=0), g, 1), np.float32)
    ours = np.asarray(run(gs.clipping.add_noise(1.0, gamma=0.0, key=0), g, 1), np.float32)
    assert len(np.unique(theirs)) == 128
    assert np.abs(theirs).max() < 2.9
    assert np.abs(ours).max() > 4.0
    assert len(np.unique(ours)) > 1000
    assert ours.std() == pytest.approx(1.0, rel=0.005)


def test_no_noise_where_the_gradient_is_not_finite() -> None:
    g = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1.0])
    tx = gs.clipping.add_noise(0.01)
    updates, clean = (run(tx, these, 1)[0] for these in (g, jnp.ones(4)))
    assert updates[:3].tolist() == [0.0, 0.0, 0.0]
    assert updates[3] == clean[3] != 1.0


def test_noise_of_nothing_is_the_identity() -> None:
    g = {"a": jnp.asarray([1e-3, -2.0]), "b": jnp.asarray(3.0, jnp.bfloat16)}
    updates = run(gs.clipping.add_noise(0.0), g, 2)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y), updates, g)


def test_key_decides_and_may_have_any_form() -> None:
    g = jnp.zeros(8)
    tx = gs.clipping.add_noise(1.0, key=5)
    for key in (np.int64(5), jax.random.key(5), jax.random.PRNGKey(5)):
        same = gs.clipping.add_noise(1.0, key=key).init(g)
        np.testing.assert_array_equal(same.rng_key, tx.init(g).rng_key)
    first, other = (
        _scan(tx.update, 2)(gs.clipping.add_noise(1.0, key=k).init(g), g) for k in (5, 6)
    )
    assert not np.isclose(first, other).any()
    typed = gs.clipping.add_noise(1.0, key=jax.random.key(5))
    np.testing.assert_array_equal(run(typed, g, 2), first)


def test_key_of_another_generator_is_kept() -> None:
    key = jax.random.key(0, impl="rbg")
    tx = gs.clipping.add_noise(1.0, key=key)
    state = tx.init(jnp.zeros(3))
    assert state.rng_key.shape == jax.random.key_data(key).shape
    assert np.isfinite(run(tx, jnp.zeros(3), 2)).all()


def test_leaves_have_noise_of_their_own() -> None:
    g = {"a": jnp.zeros(8), "b": jnp.zeros(8)}
    updates = run(gs.clipping.add_noise(1.0), g, 1)
    assert not np.isclose(updates["a"], updates["b"]).any()


@pytest.mark.parametrize(
    "key", [-1, 0.5, None, True, "0", jnp.zeros(2), jnp.ones((2, 2), "uint32")]
)
def test_bad_key_is_refused(key: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="key must be"):
        gs.clipping.add_noise(0.1, key=key)
