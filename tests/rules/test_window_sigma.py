"""OLMo's skipping does what its docstring says, on scalars."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable.rules import Reason, window_sigma
from tests.oracles.window_sigma import window_sigma as oracle
from tests.rules.running import lognormal, run, share, stormy


def losses_with_faults() -> np.ndarray:
    losses = 3.0 + 0.05 * np.random.default_rng(1).normal(size=600)
    losses[150], losses[250] = 5.0, -5.0
    losses[300:] -= 4.0
    return losses.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("options", [{}, {"window": 9, "reject_at": 2.0}, {"window": 2}])
@pytest.mark.parametrize("judge_loss", [False, True])
def test_equals_the_float64_oracle(options: dict[str, float], judge_loss: bool) -> None:
    norms, losses = stormy(), losses_with_faults() if judge_loss else None
    rule = window_sigma(judge_loss=judge_loss, **options)
    scales, _ = run(rule, norms, losses)
    assert share(scales, np.asarray(list(oracle(norms, losses, **options))), 1e-5) == 1.0


def test_large_number_of_sigmas_is_the_identity() -> None:
    scales, _ = run(window_sigma(reject_at=1e12), stormy())
    assert (scales == 1.0).all()


def test_silent_until_half_of_the_window_is_full() -> None:
    """OLMo counts the newest: with a window of 128, the 64th norm is the first to be judged."""
    rule = window_sigma()
    for spike, scale in ((62, 1.0), (63, 0.0)):
        norms = lognormal(70, 0.2)
        norms[spike] = 1_000.0
        scales, _ = run(rule, norms)
        assert scales[spike] == scale
        assert (np.delete(scales, spike) == 1.0).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
def test_leaves_healthy_noise_alone(sigma: float) -> None:
    scales, _ = run(window_sigma(), lognormal(10_000, sigma))
    assert (scales == 0.0).mean() <= 0.003


def test_pitfall_spike_hides_the_next() -> None:
    norms = np.ones(700)
    norms[500:510] = 1_000.0
    rule = window_sigma()
    scales, _ = run(rule, norms)
    assert scales[500:510].tolist() == [0.0] * 4 + [1.0] * 6
    _, state = run(rule, norms[:501])
    verdict, _ = rule.decide(gs.Measure.of(1.0), state)
    assert float(verdict.threshold) == pytest.approx(538, abs=1)


def test_pitfall_contamination_passes() -> None:
    norms = lognormal(5_000, 0.2, seed=2)
    bad = np.random.default_rng(5).random(5_000) < 0.2
    norms[bad] *= 50.0
    scales, _ = run(window_sigma(), norms)
    assert (scales[bad] == 1.0).mean() >= 0.99


@pytest.mark.parametrize("factor", [3.0, 1e3, 1e12])
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_level_shift_is_released(factor: float, sigma: float) -> None:
    norms = lognormal(700, sigma)
    norms[500:] *= factor
    scales, _ = run(window_sigma(), norms)
    assert (scales[505:] == 1.0).all()


def test_pitfall_nan_does_not_reject_the_next_128_steps() -> None:
    norms, losses = lognormal(400, 0.2), 3.0 - lognormal(400, 0.1)
    norms[[200, 201, 202]] = [np.nan, np.inf, 1e30]
    losses[[250, 251, 252]] = [np.nan, np.inf, -np.inf]
    scales, state = run(window_sigma(judge_loss=True), norms, losses)
    assert np.flatnonzero(scales == 0.0).tolist() == [200, 201, 202, 250, 251, 252]
    assert all(np.isfinite(ring.last_numbers).all() for ring in state)


def test_reason_tells_norm_from_loss() -> None:
    rule = window_sigma(judge_loss=True)
    norms, losses = lognormal(100, 0.2), 3.0 - lognormal(100, 0.1, seed=1)
    _, state = run(rule, norms, losses)
    of_norm, of_loss = Reason.HISTORY_REJECTED, Reason.LOSS_REJECTED
    for norm, loss, reason in (
        (1, 2, Reason.OK),
        (9, 2, of_norm),
        (1, 9, of_loss),
        (9, 9, of_norm),
        (1, np.nan, of_loss),
    ):
        verdict, _ = rule.decide(gs.Measure.of(float(norm)), state, value=jnp.float32(loss))
        assert verdict.reason == reason
        assert bool(verdict.accept) == (reason == 0)


def test_missing_loss_is_told_with_the_remedy() -> None:
    tx = gs.guard(optax.sgd(0.1), window_sigma(judge_loss=True))
    state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"value is missing: call update\(.*value=loss\)"):
        tx.update(jnp.ones(2), state)
    with pytest.raises(ValueError, match=r"value must be a scalar, got shape \(3,\)"):
        tx.update(jnp.ones(2), state, value=jnp.ones(3))


def test_a_rejected_step_holds_the_optimizer() -> None:
    tx = gs.guard(optax.adam(0.1), window_sigma(window=4, judge_loss=True))
    params = jnp.ones(2)
    state = tx.init(params)
    for step in range(4):
        updates, state = tx.update(jnp.full(2, 1.0 + 0.1 * step), state, params, value=1.0)
        params = optax.apply_updates(params, updates)
    _, after = tx.update(jnp.ones(2), state, params, value=100.0)
    assert gs.health(after).reason == Reason.LOSS_REJECTED
    assert jnp.array_equal(after.inner_state[0].mu, state.inner_state[0].mu)
