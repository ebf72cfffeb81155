"""AXLearn's skip and clip does what its docstring says, on scalars."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from gradstable.rules import Reason, ema_multiple
from tests.oracles.ema_multiple import ema_multiple as oracle
from tests.rules.running import lognormal, run, share, stormy

_PUBLISHED = ema_multiple(reject_recurring=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_multiple": 3.0, "max_norm": 1.0, "decay": 0.9, "start": None},
        {"max_multiple": 4.0, "decay": 0.0, "start": 0.5},
    ],
)
def test_equals_the_float64_oracle(options: dict[str, float]) -> None:
    norms = stormy()
    scales, state = run(ema_multiple(**options, reject_recurring=True), norms)
    assert share(scales, np.asarray(list(oracle(norms, **options))), 1e-5) == 1.0
    assert int(state.norms_seen) == ((scales > 0.0) & (norms > 0.0)).sum()


def test_decay_of_zero_is_the_last_accepted_norm() -> None:
    _, state = run(ema_multiple(decay=0.0), [1.0, 3.0, 5.0, 2_000.0])
    assert state.mean_norm == 5.0


def test_mean_of_the_first_norms_has_no_bias_towards_the_start() -> None:
    for start in (None, 1.0, 3.0):
        _, state = run(ema_multiple(decay=0.9, start=start), [8.0] * 3)
        assert float(state.mean_norm) == pytest.approx(8.0, rel=1e-6)


def test_large_multiple_is_the_identity() -> None:
    scales, _ = run(ema_multiple(max_multiple=1e12), stormy())
    assert (scales == 1.0).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
def test_leaves_healthy_noise_alone(sigma: float) -> None:
    scales, _ = run(ema_multiple(), lognormal(10_000, sigma))
    assert (scales == 1.0).all()


@pytest.mark.parametrize("spikes", [1, 10])
def test_spikes_are_rejected_and_never_learned(spikes: int) -> None:
    norms = lognormal(300, 0.2)
    _, before = run(ema_multiple(), norms)
    scales, after = run(ema_multiple(), [*norms, *[1_000.0] * spikes])
    assert (scales[300:] == 0.0).all()
    assert after[:2] == before[:2]


def test_pitfall_as_published_a_constant_norm_of_25_is_rejected_for_ever() -> None:
    scales, _ = run(_PUBLISHED, np.full(300, 25.0))
    assert (scales == 0.0).all()
    scales, _ = run(ema_multiple(start=None), np.full(300, 25.0))
    assert (scales == 1.0).all()


@pytest.mark.parametrize(
    ("factor", "sigma", "released"),
    [(19, 0.0, 0), (20, 0.0, None), (30, 0.1, None), (30, 0.2, 60), (100, 0.2, None)],
)
def test_pitfall_as_published_a_level_shift_locks_in(
    factor: float, sigma: float, released: int | None
) -> None:
    norms = lognormal(3_000, sigma, seed=1)
    norms[1_000:] *= factor
    scales, _ = run(_PUBLISHED, norms)
    rejected = np.flatnonzero(scales[1_000:] == 0.0)
    assert rejected.size == 2_000 if released is None else (rejected < released).all()


def test_what_keeps_coming_back_is_let_in_at_the_mean_at_first() -> None:
    scales, _ = run(ema_multiple(), np.full(300, 25.0))
    assert (scales[:5] == 0.0).all()
    assert scales[5] * 25.0 == pytest.approx(1.0)
    assert (scales[200:] == 1.0).all()
    norms = lognormal(2_000, 0.2)
    norms[1_000::5] *= 50.0
    scales, _ = run(ema_multiple(), norms)
    left = (scales * norms)[1_000::5]
    assert (left == 0.0).sum() <= 4
    assert left[:40].max() <= 3.0


def test_pitfall_zero_norm_does_not_reject_all_that_follows() -> None:
    """A mean of zero has multiples of zero."""
    scales, _ = run(ema_multiple(start=None), [0.0, 0.0, 1.0, 2.0])
    assert (scales == 1.0).all()


def test_reason_tells_clipped_from_rejected() -> None:
    rule = ema_multiple(max_norm=2.0)
    for norm, scale, reason in (
        (1.0, 1.0, Reason.OK),
        (4.0, 0.5, Reason.NORM_CLIPPED),
        (20.0, 0.1, Reason.HISTORY_REJECTED),
    ):
        verdict, _ = rule.decide(gs.Measure.of(norm), rule.init({}))
        assert float(verdict.scale) == pytest.approx(scale)
        assert verdict.reason == reason
        assert bool(verdict.accept) == (reason != Reason.HISTORY_REJECTED)


_FREE = ema_multiple(max_multiple=4.0, start=None, reject_recurring=True)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-60.0, 60.0))
def test_has_no_unit_without_a_start(log_scale: float) -> None:
    plain, _ = run(_FREE, stormy())
    scaled, _ = run(_FREE, stormy() * np.exp(log_scale / 2))
    np.testing.assert_array_equal(plain, scaled)
