"""AutoClip does what its docstring says, on scalars."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradstable as gs
from gradstable._src.rules.ring import number_held
from gradstable.rules import Reason, percentile
from tests.oracles.percentile import percentile as oracle
from tests.rules.running import lognormal, run, share, stormy


@pytest.mark.parametrize("options", [{}, {"percentile": 90.0, "window": 50}])
def test_equals_the_float64_oracle(options: dict[str, float]) -> None:
    norms = stormy()
    scales, _ = run(percentile(**options), norms)
    assert share(scales, np.asarray(list(oracle(norms, **options))), 1e-5) == 1.0


def test_hundred_percent_and_window_of_one_are_the_identity() -> None:
    for rule in (percentile(100.0), percentile(0.0, window=1)):
        scales, _ = run(rule, stormy())
        assert (scales == 1.0).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("p", [10.0, 90.0])
def test_clips_the_share_that_its_name_says(p: float, sigma: float) -> None:
    scales, _ = run(percentile(p, window=200), lognormal(4_000, sigma))
    assert (scales < 1).mean() == pytest.approx(1 - p / 100, abs=0.02)


@pytest.mark.parametrize(("p", "steps"), [(10.0, 900), (90.0, 100)])
def test_pitfall_level_shift_is_cut_to_the_old_level(p: float, steps: int) -> None:
    norms = lognormal(3_000, 0.2, seed=1)
    norms[1_500:] *= 30.0
    scales, _ = run(percentile(p), norms)
    usual = scales[1_000:1_500].mean()
    assert scales[1_500 + steps - 50 : 1_500 + steps - 10].mean() <= 0.5 * usual
    assert scales[1_500 + steps + 10 : 1_500 + steps + 50].mean() >= 0.8 * usual


def test_pitfall_spike_keeps_its_direction_but_not_its_size() -> None:
    norms = lognormal(600, 0.2)
    norms[500] = 1_000.0
    scales, _ = run(percentile(90.0), norms)
    assert scales[500] * norms[500] == pytest.approx(1.3, abs=0.1)


def test_pitfall_zero_norms_do_not_stop_learning() -> None:
    """A limit of zero would scale every gradient to zero."""
    norms = lognormal(300, 0.2)
    norms[:100:2] = 0.0
    scales, state = run(percentile(10.0), norms)
    assert (scales > 0.0).all()
    assert int(number_held(state)) == 250


def test_first_norm_is_its_own_limit() -> None:
    verdict, _ = (rule := percentile()).decide(gs.Measure.of(7.0), rule.init({}))
    assert verdict.threshold == 7.0
    assert verdict.scale == 1.0
    assert verdict.reason == Reason.OK


_NARROW, _WIDE = percentile(60.0, window=20), percentile(60.0, window=40)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-60.0, 60.0))
def test_has_no_unit(log_scale: float) -> None:
    norms = stormy()[:120]
    plain, _ = run(_NARROW, norms)
    scaled, _ = run(_NARROW, norms * np.exp(log_scale / 2))
    np.testing.assert_allclose(plain, scaled, rtol=1e-4)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.permutations(range(30)))
def test_limit_does_not_depend_on_the_order_of_the_history(order: list[int]) -> None:
    past = stormy()[90:120]
    newest = [3.0]
    plain, _ = run(_WIDE, [*past, *newest])
    permuted, _ = run(_WIDE, [*past[list(order)], *newest])
    np.testing.assert_allclose(plain[-1], permuted[-1], rtol=1e-6)
