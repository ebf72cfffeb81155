"""What goes wrong with each classic estimator: what ours mends, and the size of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from tests.moments.running import directions, runs


def at(tx: optax.GradientTransformation, *parts: tuple[float, int]) -> np.ndarray:
    """Return the steps of one parameter."""
    return directions(tx, runs(*parts))[:, 0]


def test_pitfall_ema_remembers_a_spike_for_44_steps() -> None:
    steps = at(gs.moments.ema(0.9), (1.0, 200), (1000.0, 1), (1.0, 60))[200:]
    assert np.argmax(steps < 2.0) == 44


@pytest.mark.parametrize("nesterov", [False, True])
def test_pitfall_momentum_moves_ten_times_the_spike(nesterov: bool) -> None:
    steps = at(gs.moments.trace(0.9, nesterov=nesterov), (1000.0, 1), (0.0, 300))
    assert steps.sum() == pytest.approx(10_000, rel=1e-5)


def test_pitfall_float16_momentum_does_not_become_infinite() -> None:
    gradients = np.full((10, 1), 60_000, np.float16)
    assert np.isinf(directions(optax.trace(0.9), gradients)[-1])
    assert directions(gs.moments.trace(0.9), gradients)[-1] == np.finfo(np.float16).max
    kept = directions(gs.moments.trace(0.9, accumulator_dtype=jnp.float16), gradients)
    assert np.isfinite(kept).all()


def test_pitfall_bfloat16_momentum_does_not_lose_small_gradients() -> None:
    gradients = np.concatenate([np.full((1, 1), 1.0), np.full((300, 1), 1e-3)]).astype(jnp.bfloat16)
    got = directions(gs.moments.trace(0.999), gradients)[-1].astype(float)
    lost = directions(optax.trace(0.999), gradients)[-1].astype(float)
    assert got == pytest.approx(0.9989**300 + 1e-3 * (1 - 0.999**300) / 1e-3, rel=0.03)
    assert lost > 0.99 or lost < 0.9 * got or lost > 1.1 * got


def test_pitfall_rms_takes_its_bound_at_the_first_step() -> None:
    assert at(gs.moments.scale_by_rms(), (1e3, 1))[0] == pytest.approx(3.162, abs=1e-3)
    assert at(gs.moments.scale_by_rms(bias_correction=True), (1e3, 1))[0] == pytest.approx(1.0)


def test_pitfall_rms_with_eps_inside_the_root_loses_gradients_below_1e_minus_4() -> None:
    assert at(gs.moments.scale_by_rms(), (1e-5, 200))[-1] == pytest.approx(0.1, abs=1e-3)
    outside = gs.moments.scale_by_rms(eps_in_sqrt=False)
    assert at(outside, (1e-5, 200))[-1] == pytest.approx(1.0, abs=2e-3)


def test_pitfall_centered_rms_has_no_bound_for_a_constant_gradient_but_no_nan() -> None:
    steps = at(gs.moments.scale_by_rms(centered=True), (1.0, 300))
    assert 1000 < steps[199] < 4000  # a difference of equal numbers: rounding decides
    constant = np.tile(10 ** np.random.default_rng(0).uniform(-2, 4, 200), (300, 1)).astype("f4")
    assert np.isnan(directions(optax.scale_by_stddev(), constant)).any()
    ours = directions(gs.moments.scale_by_rms(centered=True), constant)
    assert (np.abs(ours) <= constant / 1e-4 * (1 + 1e-5)).all()


def test_pitfall_centered_rms_with_bias_correction_begins_with_a_step_of_1() -> None:
    """Both averages corrected, the variance of one gradient is 0: a step of 1 / sqrt(eps)."""
    for inside in (True, False):
        tx = gs.rmsprop(0.01, centered=True, bias_correction=True, eps_in_sqrt=inside)
        updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
        np.testing.assert_allclose(np.asarray(updates), -0.01005, rtol=1e-3)
    theirs = optax.rmsprop(0.01, centered=True, bias_correction=True)
    assert theirs.update(jnp.ones(2), theirs.init(jnp.ones(2)))[0][0] < -10.0


@pytest.mark.parametrize(
    "make", [gs.moments.scale_by_rss, gs.moments.scale_by_rms, gs.moments.scale_by_adadelta]
)
def test_pitfall_float16_eps_does_not_vanish(make: type) -> None:
    tx = make(eps=1e-8)
    got = directions(tx, np.asarray([[0.0, 1e-5, 1.0]], np.float16))
    assert got.dtype == np.float16
    assert np.isfinite(got).all()
    assert got[0, 0] == 0.0


def test_pitfall_adagrad_is_slowed_by_a_spike_for_good() -> None:
    steps = at(gs.moments.scale_by_rss(), (1000.0, 1), (1.0, 1001))
    np.testing.assert_allclose(steps[[1, -1]], 1e-3, rtol=1e-3)
    assert at(gs.moments.scale_by_rss(), (1.0, 1001))[-1] == pytest.approx(0.03, abs=0.002)


def test_pitfall_adagrad_sum_does_not_overflow() -> None:
    tx = gs.moments.scale_by_rss()
    g = jnp.full((1,), 2.0**62)
    state = tx.init(g)
    update = jax.jit(tx.update)
    for _ in range(20):
        updates, state = update(g, state)
    assert jnp.isfinite(state.sum_of_squares).all()
    assert 0.2 < updates[0] < 0.3


def test_pitfall_bfloat16_adagrad_sum_does_not_stall() -> None:
    """It stops at 256 = 16**2 in optax, and steps stay 1/16."""
    gradients = np.ones((2000, 1), jnp.bfloat16)
    got = directions(gs.moments.scale_by_rss(), gradients)[-1].astype(float)
    assert got == pytest.approx(2000**-0.5, rel=0.01)
    assert directions(optax.scale_by_rss(), gradients)[-1].astype(float) == pytest.approx(1 / 16)


def test_pitfall_adadelta_starts_slowly() -> None:
    steps = at(gs.moments.scale_by_adadelta(), (1.0, 100))
    np.testing.assert_allclose(steps[[0, -1]], [0.0032, 0.0047], atol=5e-5)


def test_pitfall_adamax_is_slowed_by_a_spike() -> None:
    steps = at(gs.moments.scale_by_adamax(), (1000.0, 1), (1.0, 1001))
    assert steps[-1] == pytest.approx(0.0027, abs=5e-5)


def test_pitfall_adamax_without_eps_gives_no_nan_for_zero() -> None:
    assert np.isnan(at(optax.scale_by_adamax(eps=0.0), (0.0, 1))).all()
    assert at(gs.moments.scale_by_adamax(eps=0.0), (0.0, 1), (2.0, 1))[0] == 0.0


def test_pitfall_amsgrad_is_slowed_by_a_spike_for_good() -> None:
    steps = at(gs.moments.scale_by_amsgrad(), (1.0, 1000), (1000.0, 1), (1.0, 10_000))
    np.testing.assert_allclose(steps[[2000, -1]], 0.025, atol=2e-4)
    adam = at(gs.moments.scale_by_adam(), (1.0, 1000), (1000.0, 1), (1.0, 10_000))
    assert adam[-1] == pytest.approx(0.98, abs=0.005)


def test_pitfall_amsgrad_keeps_the_first_gradient_for_good() -> None:
    parts = (10.0, 1), (1.0, 1001)
    assert at(gs.moments.scale_by_amsgrad(), *parts)[-1] == pytest.approx(0.1, rel=1e-3)
    late = at(gs.moments.scale_by_amsgrad(correct_maximum=True), *parts)
    assert late[-1] == pytest.approx(0.97, abs=0.005)


def test_pitfall_radam_starts_with_unbounded_steps() -> None:
    steps = at(gs.moments.scale_by_radam(), (1000.0, 7))
    np.testing.assert_allclose(steps[:5], 1000.0, rtol=1e-5)
    assert (steps[5:] < 0.04).all()


def test_pitfall_radam_keeps_the_digits_of_its_length() -> None:
    exact = 2 / 0.001 - 1 - 12 * 0.999**6 / (1 - 0.999**6)
    r = ((exact - 4) * (exact - 2) * 1999 / (1995 * 1997 * exact)) ** 0.5
    assert at(gs.moments.scale_by_radam(), (1.0, 6))[-1] == pytest.approx(r, rel=1e-6)
    assert at(optax.scale_by_radam(), (1.0, 6))[-1] / r == pytest.approx(0.994, abs=1e-3)


def test_pitfall_belief_has_no_bound_for_a_constant_gradient() -> None:
    steps = at(gs.moments.scale_by_belief(), (1.0, 10_000))
    np.testing.assert_allclose(steps[[1999, -1]], [39, 2300], rtol=0.02)
    assert at(gs.moments.scale_by_adam(), (1.0, 10_000))[-1] == pytest.approx(1.0, rel=1e-3)


def test_pitfall_belief_without_eps_stays_finite() -> None:
    options = {"b1": 0.5, "b2": 0.5, "eps": 0.0, "eps_root": 0.0}
    assert not np.isfinite(at(optax.scale_by_belief(**options), (3.7e18, 400))).all()
    assert np.isfinite(at(gs.moments.scale_by_belief(**options), (3.7e18, 400))).all()


def test_pitfall_yogi_is_slowed_by_a_spike() -> None:
    parts = (1.0, 1000), (1000.0, 1), (1.0, 3000)
    assert at(gs.moments.scale_by_yogi(), *parts)[-1] == pytest.approx(0.031, abs=5e-4)
    assert at(gs.moments.scale_by_adam(), *parts)[-1] == pytest.approx(0.14, abs=5e-3)


def test_pitfall_yogi_does_not_move_what_has_no_gradient() -> None:
    assert at(optax.scale_by_yogi(), (0.0, 1))[0] > 2e-4
    assert at(gs.moments.scale_by_yogi(), (0.0, 5)).max() == 0.0
