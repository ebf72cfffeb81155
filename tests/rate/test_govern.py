"""The trust region of ``govern``: its law, what it stops, and what it leaves alone."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from benchmarks.counting import count_common_path, large_tree

START, GROWTH, LARGE = 0.01, 0.02, 0.015


def oracle(gradients: np.ndarray, steps: np.ndarray, params: np.ndarray) -> list[float]:
    """Return the factors of a run, in float64, from the formulas of the docstring."""
    factors, overshoot, radius = [], 0.0, 0.0
    last = extent = descent = None
    for moves, (g, u, theta) in enumerate(zip(gradients, steps, params, strict=True)):
        if moves:
            ratio = np.clip((g @ last) / descent, -1.5, 1.5)
            overshoot = 0.8 * overshoot + 0.2 * ratio
            length = np.linalg.norm(last)
            if overshoot > 0 and length > LARGE * extent:
                radius = min(radius, length) * np.exp(-0.5 * overshoot)
            else:
                grown = min(radius * np.exp(GROWTH + 2 / moves), 2 * length)
                radius = max(radius, grown)
        extent = max(np.linalg.norm(theta), 0.01 * np.sqrt(theta.size))
        if not moves:
            radius = START * extent
        factor = min(1.0, radius / np.linalg.norm(u))
        last = factor * u
        descent = abs(g @ last)
        factors.append(factor)
    return factors


def run(tx: Any, gradients: Any, params: Any, **extra: Any) -> tuple[list[float], Any, Any]:
    update = jax.jit(tx.update)
    state, factors = tx.init(params), []
    for g in gradients:
        updates, state = update(g, state, params, **extra)
        params = optax.apply_updates(params, updates)
        factors.append(float(state.step_factor))
    return factors, params, state


@given(seed=st.integers(0, 2**16), noise=st.floats(0.0, 2.0), rate=st.floats(1e-4, 10.0))
@settings(max_examples=20, deadline=None)
def test_factors_are_those_of_the_formulas(seed: int, noise: float, rate: float) -> None:
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=12)
    g = rng.normal(size=(40, 12)) * noise + rng.normal(size=12)
    g *= np.exp(rng.normal(size=(40, 1)))
    params, every = theta, []
    scale: list[float] = []
    # The parameters depend on the factors: replay both side by side.
    for count in range(1, len(g) + 1):
        every.append(params.copy())
        scale = oracle(g[:count], -rate * g[:count], np.array(every))
        params = params - scale[-1] * rate * g[count - 1]
    tx = gs.govern(optax.sgd(rate))
    got, _, _ = run(tx, jnp.asarray(g, jnp.float32), jnp.asarray(theta, jnp.float32))
    np.testing.assert_allclose(got, scale, rtol=2e-3)


def test_a_sound_run_is_left_alone_bit_for_bit() -> None:
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)}
    tx, bare = gs.govern(optax.adamw(1e-3)), optax.adamw(1e-3)
    state, other, mine, its = tx.init(params), bare.init(params), params, params
    for step in range(50):
        g = jax.tree.map(lambda w, step=step: w + jnp.sin(7.0 * w + step), mine)
        updates, state = tx.update(g, state, mine)
        expected, other = bare.update(g, other, its)
        chex.assert_trees_all_equal(updates, expected)
        mine, its = optax.apply_updates(mine, updates), optax.apply_updates(its, expected)
    assert int(state.shortened) == 0


@pytest.mark.parametrize("seed", range(4))
def test_no_gradient_makes_steps_outgrow_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-6, 15, size=(300, 1))
    g = jnp.asarray(rng.normal(size=(300, 16)) * sizes, jnp.float32)
    params = jnp.asarray(rng.normal(size=16), jnp.float32)
    tx = gs.govern(optax.sgd(1.0))
    state = tx.init(params)
    bound = START * np.linalg.norm(params)
    for count, each in enumerate(g):
        updates, state = jax.jit(tx.update)(each, state, params)
        if count:
            bound *= np.exp(GROWTH + 2.0 / count)
        assert np.linalg.norm(updates) <= bound * (1 + 1e-4)


@pytest.mark.parametrize("excess", [2.5, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("condition", [1.0, 1e3])
def test_a_rate_that_diverges_on_a_quadratic_does_not(excess: float, condition: float) -> None:
    """Plain gradient descent multiplies its distance by ``excess - 1`` in every step."""
    curvature = jnp.logspace(0.0, -np.log10(condition), 10)
    rng = np.random.default_rng(0)
    start, best = (jnp.asarray(rng.normal(size=10), jnp.float32) for _ in range(2))
    tx = gs.govern(optax.sgd(excess))
    params, state, update = start, tx.init(start), jax.jit(tx.update)
    far = []
    for _ in range(2000):
        updates, state = update(curvature * (params - best), state, params)
        params = optax.apply_updates(params, updates)
        far.append(float(jnp.linalg.norm(params - best)))
    size = float(jnp.linalg.norm(start - best))
    assert max(far) <= 1.2 * size
    assert np.median(far[-200:]) <= 0.1 * size


def test_a_first_gradient_that_is_huge_moves_little() -> None:
    """Pitfall: plain SGD moves by the rate times 4e11, and no loss is finite from there on."""
    tx = gs.govern(gs.guard(optax.sgd(0.01)))
    params = jnp.ones(100)
    updates, _ = tx.update(jnp.full(100, 4e10), tx.init(params), params)
    assert float(jnp.linalg.norm(updates)) == pytest.approx(0.01 * 10.0, rel=1e-5)


def test_a_jump_of_the_rate_is_limited_and_its_end_is_not() -> None:
    schedule = optax.piecewise_constant_schedule(0.02, {100: 100.0, 120: 0.01})
    tx = gs.govern(optax.sgd(schedule))
    params = jnp.ones(4)
    factors, _, _ = run(tx, [jnp.ones(4)] * 140, params)
    assert factors[99] == 1.0
    assert factors[100] == pytest.approx(0.02, rel=0.05)  # the slack is 2
    assert max(factors[100:120]) < 0.05
    assert factors[120:] == [1.0] * 20


def test_a_linear_warm_up_from_zero_is_followed() -> None:
    tx = gs.govern(optax.adam(optax.linear_schedule(0.0, 0.01, 100)))
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=64), jnp.float32)
    factors, _, _ = run(tx, jnp.asarray(rng.normal(size=(200, 64)), jnp.float32), params)
    assert factors == [1.0] * 200


@pytest.mark.parametrize("wrap", [gs.guard, lambda tx: tx], ids=["guard", "zero gradients"])
def test_a_step_that_moves_nothing_changes_nothing(wrap: Any) -> None:
    tx = gs.govern(wrap(optax.sgd(0.1)))
    params = jnp.ones(3)
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(jnp.ones(3), state, params)
    nothing = jnp.full(3, jnp.nan) if wrap is gs.guard else jnp.zeros(3)
    updates, new = tx.update(nothing, state, params)
    chex.assert_trees_all_equal(new.region, state.region)
    chex.assert_trees_all_equal(new.sampled_step, state.sampled_step)
    assert not jnp.any(updates)


def test_parameters_that_a_step_leaves_alone_do_not_count() -> None:
    """Pitfall: beside a large frozen part, every step of an adapter would look short."""
    tx = gs.govern(optax.sgd(1.0))
    params = {"frozen": jnp.full(1000, 1e3), "adapter": jnp.ones(100)}
    g = {"frozen": jnp.zeros(1000), "adapter": jnp.full(100, 5.0)}
    updates, _ = tx.update(g, tx.init(params), params)
    assert float(jnp.linalg.norm(updates["adapter"])) == pytest.approx(0.1, rel=1e-5)


def test_gradients_that_do_not_look_like_parameters_are_no_witness() -> None:
    """As those of ``optax.contrib.dpsgd``, which have a batch axis."""
    mean = optax.stateless(lambda g, _: jax.tree.map(lambda leaf: 0.01 * leaf.mean(0), g))
    tx = gs.govern(mean)
    params = jnp.ones(4)
    g = jnp.ones((8, 4))
    state = tx.init(params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(g, state, params)
    assert float(state.region.overshoot) == 0.0
    chex.assert_shape(updates, (4,))


def test_it_must_be_inside_a_rollback() -> None:
    """Pitfall: updates that lead back to a copy would be shortened, and miss it."""
    with pytest.raises(ValueError, match=r"rollback\(gradstable\.govern\(gradstable\.guard"):
        gs.govern(gs.rollback(gs.guard(optax.sgd(0.1)))).init(jnp.ones(2))
    gs.rollback(gs.govern(gs.guard(optax.sgd(0.1)))).init(jnp.ones(2))


def test_a_scaled_loss_makes_no_difference() -> None:
    params = jnp.ones(4)
    plain = gs.govern(gs.guard(optax.sgd(0.1)))
    scaled = gs.loss_scale(gs.govern(gs.guard(optax.sgd(0.1))), growth_interval=3)
    one, other = plain.init(params), scaled.init(params)
    mine = its = params
    for step in range(10):
        g = mine - 0.3 * step
        updates, one = plain.update(g, one, mine)
        mine = optax.apply_updates(mine, updates)
        factor = gs.scale_loss(other, jnp.float32(1.0))
        updates, other = scaled.update(factor * (its - 0.3 * step), other, its)
        its = optax.apply_updates(its, updates)
    np.testing.assert_allclose(np.asarray(mine), np.asarray(its), rtol=1e-5)


@pytest.mark.parametrize(
    ("inner", "words"),
    [(optax.adamw(1e-3), 10.0), (gs.guard(optax.adamw(1e-3)), 11.0), (gs.stable_adamw(1e-3), 14.0)],
    ids=["adamw", "guard", "stable_adamw"],
)
def test_it_costs_a_fifth_of_a_word(inner: Any, words: float) -> None:
    """Pitfall: XLA writes an update with a root in it to memory, for the sake of a sample."""
    count = count_common_path(gs.govern(inner), large_tree())
    assert count.words <= words + 0.2
    assert count.temp <= 0.05
