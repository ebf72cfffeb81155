"""Levanter's clip does what its docstring says, on scalars and behind an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.rules import Reason, window_clip
from tests.oracles.window_clip import window_clip as oracle
from tests.rules.running import lognormal, run, share, stormy


@pytest.mark.parametrize("options", [{}, {"window": 10, "clip_at": 1.0}, {"window": 2}])
def test_equals_the_float64_oracle(options: dict[str, float]) -> None:
    norms = stormy()
    scales, _ = run(window_clip(**options), norms)
    assert share(scales, np.asarray(list(oracle(norms, **options))), 1e-5) == 1.0


def test_large_number_of_sigmas_is_the_identity() -> None:
    scales, _ = run(window_clip(clip_at=1e12), stormy())
    assert (scales == 1.0).all()


def test_silent_until_half_of_the_window_is_full() -> None:
    norms = lognormal(100, 0.2)
    norms[[30, 63]], norms[64] = 100.0, 1_000.0
    scales, _ = run(window_clip(), norms)
    assert (scales[:64] == 1.0).all()
    assert scales[64] < 1.0


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_leaves_healthy_noise_alone(sigma: float) -> None:
    scales, _ = run(window_clip(), lognormal(10_000, sigma))
    assert (scales < 1).mean() <= 0.02


def test_pitfall_spike_hides_the_next() -> None:
    norms = np.ones(700)
    norms[500:510] = 1_000.0
    scales, _ = run(window_clip(), norms)
    left = scales * norms
    assert left[500] == pytest.approx(1.0, rel=1e-4)
    assert left[501] == pytest.approx(273, abs=1)
    assert left[509] == pytest.approx(838, abs=1)


def test_pitfall_norms_below_1e_6_are_never_clipped() -> None:
    norms = lognormal(300, 0.2) * 1e-8
    norms[200] *= 100.0
    scales, _ = run(window_clip(), norms)
    assert (scales == 1.0).all()


def test_level_shift_is_released() -> None:
    norms = lognormal(1_000, 0.1)
    norms[500:] *= 30.0
    scales, _ = run(window_clip(), norms)
    assert np.flatnonzero(scales[500:650] < 0.8).max() <= 20
    assert (scales[650:] < 1).mean() <= 0.02


def test_pitfall_nan_does_not_enter_the_window() -> None:
    """In the published code one NaN makes every later update NaN."""
    norms = lognormal(300, 0.2)
    norms[[100, 101]] = [np.nan, np.inf]
    scales, state = run(window_clip(), norms)
    assert (scales[[100, 101]] == 0.0).all()
    assert (scales[102:] > 0.0).all()
    assert np.isfinite(state.last_numbers).all()


def test_bounds_the_updates_of_an_optimizer() -> None:
    """After a quiet time second moments are stale, and a usual gradient makes a large update."""
    gradients = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    gradients[200:300] *= 1e-3

    def norms(tx: optax.GradientTransformation) -> np.ndarray:
        def body(state: optax.OptState, gradient: jax.Array) -> tuple[optax.OptState, jax.Array]:
            update, state = tx.update(gradient, state)
            return state, gs.global_norm(update)

        return np.asarray(jax.lax.scan(body, tx.init(jnp.zeros(4)), jnp.asarray(gradients))[1])

    adam = optax.scale_by_adam(b1=0.0, b2=0.95)
    bare, clipped = (
        norms(adam),
        norms(optax.chain(adam, gs.clipping.clip_by(gs.rules.window_clip()))),
    )
    assert bare[300] >= 7.0
    assert clipped[300] <= 0.5 * bare[300]
    np.testing.assert_allclose(clipped[:300], bare[:300], rtol=1e-5)


def test_reason_is_told() -> None:
    rule = window_clip(window=2)
    _, state = run(rule, [1.0, 1.0])
    verdict, _ = rule.decide(gs.Measure.of(5.0), state)
    assert verdict.reason == Reason.HISTORY_CLIPPED
    assert verdict.threshold == pytest.approx(1.0, rel=1e-5)
