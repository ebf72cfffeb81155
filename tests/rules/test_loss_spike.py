"""The rule on the loss does what its docstring says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from gradstable._src.health.stories import recurs
from gradstable.rules import LossSpikeState, Reason, loss_spike
from tests.oracles.loss_spike import loss_spike as oracle
from tests.rules.running import run

RULE, STRICT = loss_spike(), loss_spike(reject_recurring=True)
KINDS = {"positive": (3.0, 0.05), "negative": (-5.0, 0.2), "around zero": (0.0, 1.0)}


def normal(mean: float = 3.0, std: float = 0.05, steps: int = 1_000, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(mean, std, steps)
    return drawn.astype(np.float32).astype(np.float64)


def judge(losses: np.ndarray, rule: gs.rules.Rule = RULE) -> tuple[np.ndarray, LossSpikeState]:
    """Return which steps were rejected, and the last state."""
    scales, state = run(rule, np.ones(len(losses)), losses)
    return scales == 0.0, state


@pytest.mark.parametrize(
    "options", [{}, {"reject_at": 3.0, "rate": 0.1, "min_spread": 0.0, "warmup_steps": 3}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_float64_oracle(options: dict[str, float], kind: str) -> None:
    mean, std = KINDS[kind]
    losses = normal(mean, std)
    losses[[150, 151, 400]] = [mean + 20 * std, np.nan, -np.inf]
    losses[500:] += 30 * std
    rejected, _ = judge(losses, loss_spike(**options))
    expected = np.asarray(list(oracle(losses, **options))) == 0.0
    assert (rejected == expected).mean() >= 0.998, "a step on the edge may fall either way"
    assert rejected.sum() >= 8


def test_infinite_patience_rejects_only_what_is_not_finite() -> None:
    losses = normal()
    losses[[50, 100, 200]] = [1e9, np.nan, np.inf]
    rejected, _ = judge(losses, loss_spike(reject_at=1e30))
    assert np.flatnonzero(rejected).tolist() == [100, 200]


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_healthy_losses_alone(kind: str) -> None:
    rejected, _ = judge(normal(*KINDS[kind], steps=6_000))
    assert not rejected.any()


@pytest.mark.parametrize("time", [20.0, 200.0])
def test_leaves_a_falling_loss_alone(time: float) -> None:
    rejected, _ = judge(8.0 * np.exp(-np.arange(3_000) / time) + normal(2.0, steps=3_000))
    assert not rejected.any()


def test_pitfall_losses_of_very_small_batches_are_rejected_now_and_then() -> None:
    losses = np.exp(np.random.default_rng(0).normal(0.0, 0.6, 6_000))
    rejected, _ = judge(losses, STRICT)
    assert rejected.mean() == pytest.approx(0.006, abs=0.001)


def contaminated(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return losses of which a share is far too high, and which these are."""
    losses = normal(steps=5_000)
    bad = np.random.default_rng(5).random(5_000) < share
    bad[:20] = False
    losses[bad] += 2.0
    return losses, bad


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_contamination_never_passes_if_told_so(share: float) -> None:
    losses, bad = contaminated(share)
    rejected, _ = judge(losses, STRICT)
    np.testing.assert_array_equal(rejected, bad)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_what_keeps_coming_back_is_let_in_at_a_limited_size(share: float) -> None:
    losses, bad = contaminated(share)
    scales, state = run(RULE, np.ones(5_000), losses)
    assert (scales[~bad] == 1.0).all()
    assert (scales[bad] == 0.0).sum() <= 6
    allowed = scales[bad][-20:] * 2.0
    usual = 6.0 * 1.4826 * float(state.loss_spread)
    np.testing.assert_allclose(allowed, usual, rtol=0.5)
    assert recurs(state) == (share >= 0.1)


@pytest.mark.parametrize(("level", "steps"), [(4.0, 41), (9.0, 99), (300.0, 229)])
@pytest.mark.parametrize("std", [0.0, 0.05])
def test_level_shift_is_released(level: float, steps: int, std: float) -> None:
    for at in (60, 500):
        losses = normal(std=std)
        losses[at:] += level - 3.0
        rejected, _ = judge(losses, STRICT)
        assert not rejected[:at].any()
        assert steps - 8 <= rejected.sum() <= steps
        assert np.flatnonzero(rejected[at:]).max() < steps, "it rejects, and then no more"


@pytest.mark.parametrize("size", [10.0, 1e6, 1e18])
def test_one_spike_moves_the_statistics_by_a_fixed_step(size: float) -> None:
    losses = normal(steps=300)
    _, before = judge(losses)
    rejected, after = judge(np.append(losses, size))
    assert rejected[-1]
    assert (
        abs(float(after.loss_center - before.loss_center))
        <= 0.03 * 1.5 * float(before.loss_spread) + 1e-6
    )
    assert float(after.loss_spread / before.loss_spread) == pytest.approx(np.exp(0.03), rel=1e-5)


@pytest.mark.parametrize("bad", [100.0, 1e6, 1e15, -1e15])
def test_pitfall_bad_first_losses_do_not_open_the_door(bad: float) -> None:
    losses = normal(steps=200)
    losses[[0, 3, 9, 11]] = bad
    losses[[30, 60, 100]] += 2.0
    rejected, _ = judge(losses)
    assert np.flatnonzero(rejected).tolist() == [30, 60, 100]


def test_pitfall_nan_and_infinity_never_enter() -> None:
    losses = normal(steps=200)
    _, before = judge(losses)
    rejected, after = judge(np.append(losses, [np.nan, np.inf, -np.inf, 1e30, -1e30]))
    assert rejected[-5:].all()
    assert jax.tree.all(jax.tree.map(jnp.array_equal, before, after))


def test_nan_in_the_warmup_is_rejected_and_not_counted() -> None:
    losses = normal(steps=30)
    losses[[0, 7]] = np.nan
    rejected, state = judge(losses)
    assert np.flatnonzero(rejected).tolist() == [0, 7]
    assert int(state.losses_seen) == 28
    assert np.isfinite(state.first_losses.last_numbers).all()


def mostly_zero(share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(4_000) < share, rng.exponential(size=4_000), 0.0)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_pitfall_losses_that_are_mostly_zero_do_not_make_the_rest_spikes(
    share: float, size: float
) -> None:
    """As of a hinge: the median deviation is zero, and any loss would be infinitely far off."""
    losses = size * mostly_zero(share, seed=0)
    losses[[1_000, 2_500, 3_900]] = 100.0 * size
    rejected, _ = judge(losses)
    assert rejected[[1_000, 2_500, 3_900]].all()
    assert rejected.sum() - 3 <= 0.01 * (losses > 0).sum()


def test_a_hinge_that_learns_is_left_alone_all_the_way_to_zero() -> None:
    rng = np.random.default_rng(1)
    at = np.arange(3_000)
    losses = np.maximum(0.0, 3.0 * np.exp(-at / 300) - 0.5 + 0.4 * rng.normal(size=3_000))
    assert (losses > 0).mean() < 0.5
    rejected, _ = judge(losses)
    assert rejected.sum() <= 0.01 * (losses > 0).sum()


def test_losses_without_any_spread_are_not_judged_until_they_have_one() -> None:
    losses = np.append(np.zeros(100), [0.5, 0.4, 0.6])
    rejected, state = judge(losses)
    assert not rejected.any()
    assert float(state.loss_spread) > 0.0


def test_pitfall_steady_loss_may_rise_by_nine_percent() -> None:
    rejected, _ = judge(np.append(np.full(300, 2.0), [2.17, 2.2]))
    assert rejected[-2:].tolist() == [False, True]


_SCALES = st.sampled_from([2.0**k for k in range(-20, 21, 5)])
_FREE = loss_spike(min_spread=0.0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(_SCALES, st.sampled_from([0.0, 16.0, -64.0]))
def test_has_neither_unit_nor_origin(scale: float, shift: float) -> None:
    losses = np.round(normal(0.0, 1.0, steps=300) * 1024) / 1024  # shifted without rounding
    losses[[100, 150]] += 12.0
    plain, _ = judge(losses, _FREE)
    moved, _ = judge((losses + shift) * scale, _FREE)
    assert (plain == moved).mean() >= 0.99
    assert plain[[100, 150]].all()
    assert moved[[100, 150]].all()


def test_missing_loss_is_told_with_the_remedy() -> None:
    for tx in (gs.guard(optax.sgd(0.1), RULE), gs.clipping.clip_by(gs.rules.loss_spike())):
        state = tx.init(jnp.ones(2))
        with pytest.raises(ValueError, match=r"loss_spike .* value is missing: .*value=loss\)"):
            tx.update(jnp.ones(2), state)
        with pytest.raises(ValueError, match=r"value must be a scalar, got shape \(2,\)"):
            tx.update(jnp.ones(2), state, value=jnp.ones(2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "python"])
def test_takes_losses_of_any_dtype(dtype: str) -> None:
    loss = 2.5 if dtype == "python" else jnp.asarray(2.5, dtype)
    verdict, state = RULE.decide(gs.Measure.of(1.0), RULE.init({}), value=loss)
    assert verdict.accept
    assert state.loss_center == 2.5
    assert state.loss_center.dtype == jnp.float32


def test_guard_holds_everything_and_explains() -> None:
    tx = gs.guard(optax.adam(0.1), RULE)
    params = jnp.ones(2)
    state = tx.init(params)
    for _, loss in zip(range(2), itertools.repeat(1.0)):
        _, state = tx.update(jnp.ones(2), state, params, value=loss)
    updates, after = tx.update(jnp.ones(2), state, params, value=jnp.inf)
    assert not updates.any()
    assert gs.health(after).reason == Reason.LOSS_REJECTED
    assert jnp.array_equal(after.inner_state[0].nu, state.inner_state[0].nu)
    assert "the loss was not finite, or far above its usual range" in gs.explain(after)
