"""What the guard promises, each promise on a run of its own."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.storm.optimizers import INNER

SIZE = 64


def gradients(steps: int, *, sigma: float = 0.2, seed: int = 0) -> np.ndarray:
    """Random directions whose norms scatter log-normally around 1."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(steps, SIZE))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions * np.exp(rng.normal(0, sigma, (steps, 1)))).astype(np.float32)


def train(
    tx: optax.GradientTransformation, grads: np.ndarray, carry: Any = None
) -> tuple[Any, Any]:
    """Return the last ``(params, state)`` and the stacked trail of them after every step."""
    params = jnp.ones((SIZE,))
    start = carry or (params, tx.init(params))
    return compiled(tx)(start, jnp.asarray(grads))


@functools.cache
def compiled(tx: optax.GradientTransformation) -> Callable[..., tuple[Any, Any]]:
    """Return the run of a transform; runs of equal length share what is compiled."""

    def step(carry: Any, g: jax.Array) -> tuple[Any, Any]:
        params, state = carry
        updates, state = tx.update(g, state, params)
        carry = (optax.apply_updates(params, updates), state)
        return carry, (carry, updates)

    return jax.jit(lambda c, g: jax.lax.scan(step, c, g))


ADAMW, SLOW_SGD, SGD = (
    gs.guard(inner) for inner in (optax.adamw(1e-2), optax.sgd(1e-3), optax.sgd(1.0))
)


@pytest.mark.parametrize("at", [*range(11), 50, 199])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_nan_batch_costs_exactly_one_step(at: int, bad: float) -> None:
    """Pitfall: production skippers put the NaN into their window and lose 128 steps."""
    grads = gradients(200)
    grads[at, 3] = bad
    (_, state), (trail, _) = train(ADAMW, grads)
    health = gs.health(state)
    assert health.rejected == 1
    assert health.last_rejected == at + 1
    rejected = np.diff(np.asarray(gs.health(trail[1]).rejected), prepend=0)
    np.testing.assert_array_equal(np.flatnonzero(rejected), [at])


def test_one_nan_batch_leaves_the_run_as_if_it_had_not_been() -> None:
    grads = gradients(100)
    with_nan = np.insert(grads, 40, np.nan, axis=0)
    tx = gs.guard(optax.adamw(optax.cosine_decay_schedule(1e-2, 100)))
    (params, state), _ = train(tx, grads)
    (other_params, other_state), _ = train(tx, with_nan)
    np.testing.assert_array_equal(params, other_params)
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, other_state.inner_state)
    jax.tree.map(np.testing.assert_array_equal, state.rule_state, other_state.rule_state)


def test_a_thousand_nan_batches() -> None:
    """Pitfall: a guard with a budget gives up and applies the NaN."""
    tx = gs.guard(optax.adamw(optax.cosine_decay_schedule(1e-2, 100)))
    carry, _ = train(tx, gradients(30))
    storm = np.full((1000, SIZE), np.nan, np.float32)
    held, (trail, _) = train(tx, storm, carry)
    params = np.asarray(trail[0])
    assert (params.view(np.int32) == np.asarray(carry[0]).view(np.int32)).all()
    before, after = jax.device_get((carry[1].inner_state, trail[1].inner_state))
    jax.tree.map(
        lambda old, new: np.testing.assert_array_equal(new, np.stack([old] * 1000)), before, after
    )
    health = gs.health(held[1])
    assert health.consecutive_rejected == 1000
    with pytest.raises(gs.TrainingDiverged, match="last 1000 steps were all rejected"):
        gs.check(held[1])
    (_, state), (trail, _) = train(tx, gradients(20, seed=1), held)
    assert gs.health(state).consecutive_rejected == 0
    assert gs.health(state).accepted == 50
    assert (np.diff(np.asarray(trail[0])[:, 0]) != 0).all()
    gs.check(state)


@pytest.mark.parametrize(("factor", "steps"), [(3, 5), (30, 100), (1000, 200)])
def test_level_shift_is_released(factor: float, steps: int) -> None:
    grads = gradients(800)
    grads[300:] *= factor
    _, ((_, states), _) = train(SLOW_SGD, grads)
    rejected = np.diff(np.asarray(gs.health(states).rejected), prepend=0)
    assert not rejected[:300].any()
    assert not rejected[300 + steps :].any()


def test_ten_percent_of_batches_at_fifty_times() -> None:
    """None of them reaches the parameters at more than four times the normal step."""
    for seed in range(5):
        grads = gradients(2000, seed=seed)
        bad = np.random.default_rng(seed + 100).random(2000) < 0.1
        grads[bad] *= 50
        _, (_, updates) = train(SGD, grads)
        steps = np.linalg.norm(np.asarray(updates), axis=1)
        normal = np.median(steps[~bad])
        known = bad & (np.arange(2000) > 0)  # the very first batch has no history
        assert steps[known].max() <= 4 * normal
        assert (steps[~bad] > 0).mean() >= 0.99


@pytest.mark.parametrize("name", INNER)
def test_healthy_updates_are_bit_identical_outside_jit(name: str) -> None:
    inner = INNER[name]()
    tx = gs.guard(inner)
    params = theirs = {"w": jnp.asarray(gradients(3, seed=9)), "b": jnp.ones((3,))}
    state, other = tx.init(params), inner.init(theirs)
    rng = np.random.default_rng(0)
    for _ in range(3):
        g = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        updates, state = tx.update(g, state, params)
        expected, other = inner.update(g, other, theirs)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        params, theirs = (
            optax.apply_updates(params, updates),
            optax.apply_updates(theirs, expected),
        )
    assert gs.health(state).accepted == 3
    assert gs.health(state).clipped == 0


@pytest.mark.parametrize("name", ["momentum", "adamw_schedule", "lamb", "adafactor", "prodigy"])
def test_healthy_updates_are_equal_to_rounding_inside_jit(name: str) -> None:
    inner = INNER[name]()
    grads = gradients(20)
    (params, _), _ = train(gs.guard(inner), grads)
    (theirs, _), _ = train(inner, grads)
    np.testing.assert_allclose(params, theirs, rtol=1e-5, atol=1e-6)


def test_a_rejected_step_keeps_negative_zero() -> None:
    params = jnp.asarray([-0.0, 0.0, 1.0])
    tx = gs.guard(optax.sgd(1.0))
    updates, _ = tx.update(jnp.full((3,), jnp.nan), tx.init(params), params)
    after = np.asarray(optax.apply_updates(params, updates))
    np.testing.assert_array_equal(np.signbit(after), [True, False, False])


def test_a_gradient_that_overflows_inside_the_optimizer_freezes_nothing() -> None:
    """Pitfall: 1e20 squares to inf in Adam's nu, and that weight never moves again."""
    tx = gs.guard(optax.adam(1e-2))
    grads = gradients(50)
    grads[0, 0] = 1e20
    (params, state), _ = train(tx, grads)
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), state.inner_state))
    assert (params != 1.0).all()
    assert gs.health(state).rejected == 1


def test_an_update_that_breaks_inside_reaches_no_parameter() -> None:
    """The last line of defense: an inner transform that makes a NaN of its own."""
    breaks = optax.stateless_with_tree_map(lambda g, _: jnp.where(g > 0, jnp.inf, g))
    tx = gs.guard(optax.chain(breaks, optax.trace(0.9), optax.sgd(1.0)))
    (params, state), _ = train(tx, gradients(10))
    assert np.isfinite(params).all()
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), state.inner_state))


def test_an_update_that_would_overflow_its_parameter_is_dropped() -> None:
    params = jnp.asarray([6e4, 1.0], jnp.float16)
    tx = gs.guard(optax.sgd(1.0))
    updates, _ = tx.update(jnp.asarray([-3e4, -3e4], jnp.float16), tx.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(np.asarray(after, np.float32), [6e4, 3e4])


def test_clipping_in_low_precision_does_not_lose_the_scale() -> None:
    """Pitfall: a factor of 1e-8 is zero in float16."""
    tx = gs.guard(optax.identity(), gs.rules.global_norm(1e-3))
    g = jnp.asarray([6e4, 0.0], jnp.float16)
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(np.asarray(updates, np.float32), [1e-3, 0.0], rtol=1e-3)


def test_extra_arguments_reach_the_inner_transform() -> None:
    def update(updates: Any, state: Any, params: Any = None, *, value: Any, **_: Any) -> Any:
        return jax.tree.map(lambda u: u * value, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx = optax.chain(gs.guard(inner), optax.identity())
    g = jnp.ones(2)
    updates, _ = tx.update(g, tx.init(g), value=3.0, unknown=None)
    np.testing.assert_array_equal(updates, [3.0, 3.0])


def test_mixed_precision_keeps_the_types_of_the_state() -> None:
    """Pitfall: bf16 parameters with f32 gradients change optax's state at step 1."""
    params = {"w": jnp.ones((4, 3), jnp.bfloat16)}
    tx = gs.guard(optax.adamw(1e-3))
    state = tx.init(params)
    g = {"w": jnp.full((4, 3), 0.1, jnp.float32)}
    _, after = jax.lax.scan(lambda s, _: (tx.update(g, s, params)[1], None), state, length=3)[::-1]
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


def test_replicas_decide_alike_in_vmap_with_axis_name() -> None:
    tx = gs.guard(optax.sgd(1.0), axis_name="shards")
    shards = jnp.ones((4, 3)).at[2, 1].set(jnp.nan)
    params = jnp.ones((4, 3))

    def step(p: jax.Array, g: jax.Array) -> Any:
        updates, state = tx.update(g, tx.init(p), p)
        return optax.apply_updates(p, updates), gs.health(state).rejected

    after, rejected = jax.vmap(step, axis_name="shards")(params, shards)
    np.testing.assert_array_equal(after, params)
    np.testing.assert_array_equal(rejected, [1, 1, 1, 1])
