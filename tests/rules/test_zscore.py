"""ZClip does what its docstring says, on scalars."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from gradstable.rules import Reason, zscore
from tests.oracles.zscore import zscore as oracle
from tests.rules.running import lognormal, run, share, stormy

FREE = zscore(max_norm=None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_norm": None},
        {"max_norm": None, "mode": "mean"},
        {"max_norm": 3.0, "mode": "percentile"},
        {"max_norm": None, "skip_update_on_spike": True, "mode": "percentile"},
        {"max_norm": None, "clip_factor": 0.7, "warmup_steps": 5, "decay": 0.9, "clip_at": 1.5},
        {"max_norm": None, "eps": 0.1},
    ],
    ids=str,
)
def test_equals_the_float64_oracle(options: dict[str, Any]) -> None:
    norms = stormy()
    scales, _ = run(zscore(**options), norms)
    assert share(scales, np.asarray(list(oracle(norms, **options))), 1e-5) == 1.0


def test_large_threshold_is_the_clip_by_global_norm() -> None:
    norms = stormy()
    scales, _ = run(zscore(clip_at=1e12, max_norm=2.0), norms)
    plain, _ = run(gs.rules.global_norm(2.0), norms)
    np.testing.assert_array_equal(scales, plain)


def test_decay_of_zero_is_the_last_norm() -> None:
    _, state = run(zscore(decay=0.0, warmup_steps=2, clip_at=1e12, max_norm=None), [1, 2, 5, 3])
    assert state.mean_norm == 3.0
    assert state.norm_variance == 0.0


def test_warmup_gives_mean_and_variance_of_the_first_norms() -> None:
    norms = lognormal(25, 0.3)
    scales, state = run(FREE, norms)
    assert (scales == 1.0).all()
    assert float(state.mean_norm) == pytest.approx(norms.mean(), rel=1e-5)
    assert float(state.norm_variance) == pytest.approx(norms.var(), rel=1e-5)


@pytest.mark.parametrize(("sigma", "share"), [(0.1, 0.020), (0.3, 0.037), (0.6, 0.068)])
def test_clips_a_few_percent_of_healthy_steps(sigma: float, share: float) -> None:
    scales, _ = run(FREE, lognormal(20_000, sigma))
    assert (scales < 1).mean() == pytest.approx(share, rel=0.2)


def test_learns_what_was_clipped_but_not_the_effect_of_max_norm() -> None:
    norms = lognormal(400, 0.2) * 10.0
    scales, state = run(zscore(max_norm=1.0), norms)
    np.testing.assert_allclose(scales * norms, 1.0, rtol=1e-5)
    assert float(state.mean_norm) == pytest.approx(10.0, rel=0.1)
    norms[300] = 1e6
    _, spiked = run(zscore(max_norm=1.0), norms)
    assert float(spiked.mean_norm) == pytest.approx(float(state.mean_norm), rel=0.05)


@pytest.mark.parametrize(
    ("sigma", "factor", "level", "clipped"),
    [(0.05, 2.0, 1.01, 1.0), (0.2, 2.0, 2.04, 0.02), (0.2, 3.0, 1.17, 1.0)],
)
def test_pitfall_level_shift_locks_in(
    sigma: float, factor: float, level: float, clipped: float
) -> None:
    norms = lognormal(6_000, sigma, seed=1)
    norms[1_000:] *= factor
    scales, state = run(FREE, norms)
    assert (scales[-1_000:] < 1).mean() == pytest.approx(clipped, abs=0.01)
    assert (scales * norms)[-1_000:].mean() == pytest.approx(level, abs=0.01)
    assert (state.norm_variance == 0.0) == (clipped == 1.0)


@pytest.mark.parametrize("factor", [2.0, 30.0])
def test_percentile_mode_releases_a_level_shift(factor: float) -> None:
    norms = lognormal(3_000, 0.05, seed=1)
    norms[1_000:] *= factor
    scales, _ = run(zscore(max_norm=None, mode="percentile"), norms)
    assert (scales[-1_000:] < 1).mean() <= 0.03


def test_pitfall_percentile_mode_lets_contamination_through() -> None:
    norms = lognormal(5_000, 0.2, seed=2)
    bad = np.random.default_rng(5).random(5_000) < 0.2
    bad[:300] = False
    norms[bad] *= 50.0
    scales, _ = run(zscore(max_norm=None, mode="percentile"), norms)
    assert (scales[bad] == 1.0).mean() == pytest.approx(0.59, abs=0.01)
    scales, _ = run(FREE, norms)
    assert (scales[bad] * norms[bad]).max() <= 1.5


def test_skip_update_on_spike_skips_the_statistics_and_not_the_step() -> None:
    norms = lognormal(100, 0.2)
    rule = zscore(max_norm=None, skip_update_on_spike=True)
    _, before = run(rule, norms)
    scales, after = run(rule, [*norms, 100.0])
    assert 0.0 < scales[-1] < 0.05
    assert after == before


def test_pitfall_nan_does_not_switch_it_off() -> None:
    """In the reference code one NaN makes mean and variance NaN, and no z-score is ever high."""
    norms = lognormal(200, 0.2)
    norms[[10, 100]], norms[150] = np.nan, 1_000.0
    scales, state = run(FREE, norms)
    assert scales[[10, 100]].tolist() == [0.0, 0.0]
    assert scales[150] <= 0.002
    assert np.isfinite(state.norm_variance)


def test_pitfall_zero_norms_do_not_stop_learning() -> None:
    """A mean of zero would clip every norm to zero, and learn that."""
    scales, _ = run(FREE, [*[0.0] * 60, *lognormal(100, 0.2)])
    assert (scales > 0.0).all()


def test_reason_tells_spike_from_limit() -> None:
    rule = zscore(max_norm=2.0)
    _, state = run(rule, lognormal(30, 0.2))
    for norm, reason in ((1.0, Reason.OK), (9.0, Reason.ZSCORE_CLIPPED)):
        verdict, _ = rule.decide(gs.Measure.of(norm), state)
        assert verdict.reason == reason
    verdict, _ = rule.decide(gs.Measure.of(9.0), rule.init({}))
    assert verdict.reason == Reason.NORM_CLIPPED
    assert verdict.threshold == 2.0


@pytest.mark.parametrize("mode", ["zscore", "Mean", None])
def test_unknown_mode_is_refused(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"mode must be one of \('adaptive_scaling'"):
        zscore(mode=mode)


_WITHOUT_UNIT = zscore(max_norm=None, mode="percentile")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-15.0, 15.0))
def test_percentile_mode_has_no_unit(log_scale: float) -> None:
    plain, _ = run(_WITHOUT_UNIT, stormy())
    scaled, _ = run(_WITHOUT_UNIT, stormy() * np.exp(log_scale))
    np.testing.assert_allclose(plain, scaled, rtol=1e-4)
