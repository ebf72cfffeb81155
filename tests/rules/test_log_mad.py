"""The default rule does what its docstring says, on scalars."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradstable as gs
from gradstable.rules import LogMadState, Rule, log_mad
from tests.oracles.log_mad import log_mad as oracle


def run(rule: Rule, norms: Iterable[float]) -> tuple[np.ndarray, LogMadState]:
    """Return the scales (0 where rejected) and the last state."""

    def body(state: LogMadState, norm: jax.Array) -> tuple[LogMadState, jax.Array]:
        measure = gs.Measure.of(norm)
        verdict, state = rule.decide(measure, state)
        return state, jnp.where(verdict.accept, verdict.scale, 0.0)

    norms = jnp.asarray(list(norms), jnp.float32)
    state, scales = jax.jit(lambda s, n: jax.lax.scan(body, s, n))(rule.init({}), norms)
    return np.asarray(scales), state


def lognormal(steps: int, sigma: float, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0.0, sigma, steps))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_at": 1.0, "reject_at": 2.0, "reject_above": 1.0},
        {"rate": 0.2, "max_spread": 1.0, "min_spread": 0.1},
        {"reject_recurring": True},
    ],
)
def test_equals_the_float64_oracle(options: dict[str, float]) -> None:
    norms = lognormal(600, 0.4, seed=3)
    norms[100:110] *= 30.0
    norms[150:300:7] *= 40.0
    norms[300:] *= 5.0
    norms[[0, 7, 450]] = [40.0, 0.0, 1e-3]
    scales, _ = run(log_mad(**options), norms)
    expected = np.asarray(list(oracle(norms, **options)))
    # A step on the edge of a threshold may fall either way in float32.
    same = np.isclose(scales, expected, rtol=1e-3, atol=1e-6)
    assert same.mean() >= 0.995


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2, 0.3, 0.45])
def test_leaves_healthy_noise_alone(sigma: float) -> None:
    scales, _ = run(log_mad(), lognormal(20_000, sigma))
    assert (scales < 1).mean() <= 0.01
    assert (scales == 0).mean() <= 0.001


@pytest.mark.parametrize("drift", [-0.01, 0.01])
def test_follows_a_drift_of_one_percent_a_step(drift: float) -> None:
    norms = lognormal(2_000, 0.1) * np.exp(drift * np.arange(2_000))
    scales, _ = run(log_mad(), norms)
    assert (scales == 0).sum() == 0
    assert (scales < 1).mean() <= 0.02


@pytest.mark.parametrize(("factor", "steps"), [(3, 5), (30, 100), (1000, 200)])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("at", [20, 500])
def test_level_shift_is_released(factor: float, steps: int, sigma: float, at: int) -> None:
    """Pitfall: a threshold fed with clipped values alone locks a new level out for ever."""
    norms = lognormal(at + 1_000, sigma, seed=1)
    norms[at:] *= factor
    scales, _ = run(log_mad(), norms)
    rejected = np.flatnonzero(scales[at:] == 0)
    assert (rejected < steps).all(), f"still rejecting {rejected.max()} steps after the shift"
    assert (scales[at + 400 :] < 1).mean() <= 0.01


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.3])
def test_contamination_passes_at_the_usual_size_at_most(share: float, sigma: float) -> None:
    """Pitfall: a window that keeps the spike lets the next ones through."""
    rng = np.random.default_rng(5)
    norms = lognormal(5_000, sigma, seed=4)
    bad = rng.random(5_000) < share
    norms[bad] *= 50.0
    scales, _ = run(log_mad(reject_recurring=True), norms)
    assert (scales[bad] * norms[bad]).max() <= 4.0
    assert (scales[~bad] < 1).mean() <= 0.005
    scales, _ = run(log_mad(), norms)
    assert (scales[bad] * norms[bad]).max() <= 3.0 * norms[~bad].max()
    assert (scales[~bad] < 1).mean() <= 0.005


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.45])
@pytest.mark.parametrize("factor", [20.0, 100.0, 1e4, 1e8])
@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_pitfall_a_minority_is_not_rejected_for_ever(
    share: float, factor: float, sigma: float
) -> None:
    """A task with larger gradients in a part of all batches would never be learned."""
    rng = np.random.default_rng(7)
    norms = lognormal(5_000, sigma, seed=9)
    minority = rng.random(5_000) < share
    norms[minority] *= factor
    scales, state = run(log_mad(), norms)
    assert (scales == 0).mean() <= 0.003
    assert (scales[1_000:] > 0).all()
    left = scales[minority][-20:] * norms[minority][-20:]
    assert (left >= 0.7).all()
    rejecting, kept = run(log_mad(reject_recurring=True), norms)
    assert factor < 100.0 or (rejecting[minority] == 0).mean() >= 0.6
    assert jax.tree.structure(kept) == jax.tree.structure(state)


@pytest.mark.parametrize("number", [2, 10])
def test_spikes_are_rejected_until_their_level_is_known(number: int) -> None:
    """A run of them counts once: a burst makes no level known."""
    norms = lognormal(2_000, 0.2)
    starts = [400, 600, 800, 1_000]
    for start in starts:
        norms[start : start + number] = 1e3
    scales, _ = run(log_mad(), norms)
    spikes = scales[norms == 1e3].reshape(4, number)
    assert (spikes[:3] == 0).all()
    assert (spikes[3] > 0).all()
    assert (spikes[3] * 1e3 <= 1.5).all()
    scattered = norms.copy()
    scattered[starts] = [1e2, 1e4, 1e6, 1e8]
    scales, _ = run(log_mad(), scattered)
    assert (scales[starts] == 0).all()


def test_a_level_is_forgotten() -> None:
    norms = lognormal(6_000, 0.2)
    norms[[100, 1_500, 3_000, 4_500, 5_900]] = 1e3
    scales, _ = run(log_mad(), norms)
    assert (scales[norms == 1e3] == 0).all()


def test_a_level_that_was_accepted_is_known_when_it_returns() -> None:
    """Pitfall: a curriculum whose gradients are large at times is rejected each time."""
    norms = lognormal(5_000, 0.1)
    norms[np.arange(5_000) // 250 % 2 == 1] *= 30.0
    scales, _ = run(log_mad(), norms)
    assert (scales == 0).mean() <= 0.02
    assert (scales[700:] > 0).all()


@pytest.mark.parametrize(("number", "factor"), [(1, 1e-6), (5, 1e-8), (20, 1e-4)])
def test_pitfall_a_quiet_start_does_not_lock_the_run(number: int, factor: float) -> None:
    norms = lognormal(1_000, 0.1)
    norms[:number] *= factor
    scales, _ = run(log_mad(), norms)
    assert (scales == 0).sum() <= 6 + number / 4
    assert (scales[300:] == 1).mean() >= 0.99


@pytest.mark.parametrize("first", [50.0, 1e3, 1e6, 1e15])
def test_bad_first_batch_does_not_open_the_door(first: float) -> None:
    """Pitfall: a history that begins with a spike takes the next spikes for normal."""
    norms = lognormal(200, 0.2, seed=6)
    norms[0] = first
    norms[[5, 12, 30]] *= first
    scales, _ = run(log_mad(), norms)
    assert (scales[[5, 12]] == 0).all()
    assert scales[30] * norms[30] <= 1.5  # the third of a kind is let in, at the usual size
    assert (np.delete(scales, [5, 12, 30]) < 1).mean() <= 0.03


@pytest.mark.parametrize("size", [20.0, 1e3, 1e18, 3e38])
def test_one_spike_moves_the_statistics_by_a_fixed_step(size: float) -> None:
    """Pitfall: one outlier in a mean and variance hides the next hundred."""
    norms = lognormal(300, 0.2)
    _, before = run(log_mad(), norms)
    _, after = run(log_mad(), [*norms, size])
    assert (
        abs(float(after.log_center - before.log_center))
        <= 0.03 * 1.5 * float(before.log_spread) + 1e-6
    )
    assert float(after.log_spread / before.log_spread) == pytest.approx(np.exp(0.03), rel=1e-5)


def test_zero_norms_do_not_enter_the_statistics() -> None:
    """Pitfall: log(0) = -inf in an average stays there."""
    norms = lognormal(100, 0.2)
    _, before = run(log_mad(), norms)
    scales, after = run(log_mad(), [*norms, *[0.0] * 50])
    assert (scales[100:] == 1).all()
    assert jax.tree.all(jax.tree.map(jnp.array_equal, before, after))


@given(st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=40))
def test_state_stays_finite_and_scale_in_unit_interval(norms: list[float]) -> None:
    padded = norms + [1.0] * (40 - len(norms))
    scales, state = run(log_mad(), padded)
    assert ((scales >= 0) & (scales <= 1)).all()
    assert np.isfinite(state.log_center)
    assert state.log_spread >= 0.05 * 0.9999
    assert state.log_spread <= 10.0


@given(st.floats(-60, 60))
def test_has_no_unit(log_scale: float) -> None:
    norms = lognormal(200, 0.3, seed=8)
    norms[[50, 120]] *= 8.0
    plain, _ = run(log_mad(), norms)
    scaled, _ = run(log_mad(), norms * np.exp(log_scale * 0.5))
    assert np.isclose(plain, scaled, rtol=1e-2, atol=1e-3).mean() >= 0.99
