"""What the rules measure alike, on numbers that can be checked by hand."""

import dataclasses

import numpy as np

import gradstable as gs
from gradstable._src.doctor import signals
from gradstable.telemetry import Run
from tests.doctor.expected import RUNS


def a_run(**columns: np.ndarray) -> Run:
    """Return a healthy run with other numbers in some columns."""
    return dataclasses.replace(gs.telemetry.read_run(RUNS / "letters.jsonl"), **columns)


def test_the_usual_value_is_the_median_of_those_before() -> None:
    values = np.arange(1.0, 101.0)
    usual = signals.usual(values)
    assert np.isnan(usual[: signals.LEAST_HISTORY]).all()
    # Between two in the middle, the median of the logs is the log of their geometric mean.
    np.testing.assert_allclose(usual[8], np.sqrt(4 * 5))
    np.testing.assert_allclose(usual[99], np.sqrt(83 * 84))


def test_zero_and_nan_are_not_in_the_usual_value() -> None:
    values = np.tile([2.0, np.nan, 0.0, np.inf], 10)
    np.testing.assert_allclose(signals.usual(values)[-1], 2.0)


def test_what_may_be_negative_has_no_usual_value() -> None:
    values = np.ones(80)
    values[40] = -1.0
    known = np.isfinite(signals.usual(values))
    assert known[8:41].all()
    assert not known[41:73].any()
    assert known[73:].all()


def test_a_quotient_of_what_is_negative_means_nothing() -> None:
    assert signals.over(6.0, 3.0) == 2.0
    assert np.isnan(signals.over(-300.0, -1.0))
    assert np.isnan(signals.over(1.0, 0.0))


def test_the_last_loss_is_of_accepted_steps() -> None:
    loss, scale = np.ones(120), np.ones(120)
    loss[100:], scale[100:] = 1000.0, 0.0
    run = a_run(loss=loss, scale=scale)
    assert signals.last_loss(run) == 1.0
    assert np.isnan(signals.last_loss(a_run(loss=loss, scale=np.zeros(120))))


def test_slow_growth_is_growth() -> None:
    creeping = 1.1 ** np.arange(120.0)
    assert signals.multiple(creeping)[-1] < signals.NORM_SPIKE
    assert not signals.sudden(a_run(loss=creeping), 119)
    assert not signals.sudden(a_run(grad_norm=creeping), 119)
    assert signals.sudden(a_run(loss=creeping[::-1]), 119)


def test_a_run_is_broken_since_the_first_step_that_was_applied() -> None:
    norms, scale = np.ones(120), np.ones(120)
    norms[[50, 100, 110]] = np.nan
    scale[[50, 100]] = 0.0
    assert signals.broken_since(a_run(grad_norm=norms, scale=scale)) == 120
    norms[110:] = np.nan
    assert signals.broken_since(a_run(grad_norm=norms, scale=scale)) == 110
    scale[-1] = 0.0
    assert signals.broken_since(a_run(grad_norm=norms, scale=scale)) == 120
