"""Fewer points: no spike is lost, no gap is bridged."""

import numpy as np
import pytest

from gradstable._src.report.binning import clusters, envelope, lonely, maxima, medians


def test_no_spike_is_lost(rng: np.random.Generator) -> None:
    x = np.arange(1, 100_001)
    y = rng.standard_normal(100_000)
    up, down = [7, 50_000, 99_999], [8, 31_234]
    y[up], y[down] = 100.0, -100.0
    few_x, few_y = envelope(x, y, bins=400)
    assert len(few_x) <= 800
    assert set(x[up]) <= set(few_x[few_y == 100.0].astype(int))
    assert set(x[down]) <= set(few_x[few_y == -100.0].astype(int))
    assert np.all(np.diff(few_x) > 0)


def test_a_short_curve_is_left_as_it_is(rng: np.random.Generator) -> None:
    x, y = np.arange(50), rng.standard_normal(50)
    few_x, few_y = envelope(x, y, bins=25)
    np.testing.assert_array_equal(few_x, x)
    np.testing.assert_array_equal(few_y, y)


def test_what_is_not_finite_is_a_gap() -> None:
    _, y = envelope(np.arange(4), np.array([1.0, np.inf, np.nan, 2.0]), bins=10)
    assert np.isfinite(y).tolist() == [True, False, False, True]


def test_a_bin_of_nothing_but_nan_is_a_gap() -> None:
    y = np.ones(1000)
    y[200:400] = np.nan
    x, few = envelope(np.arange(1000), y, bins=10)
    assert np.isnan(few[(x >= 200) & (x < 400)]).all()
    assert np.isfinite(few[(x < 200) | (x >= 400)]).all()


def test_no_line_is_drawn_over_what_was_lost() -> None:
    x, y = envelope(np.array([1, 2, 6, 7]), np.ones(4), bins=10, lost=[(3, 5)])
    assert x.tolist() == [1, 2, 3, 6, 7]
    assert np.flatnonzero(np.isnan(y)).tolist() == [2]


def test_medians_leave_out_what_is_not_finite() -> None:
    x, y = medians(np.arange(6), np.array([1.0, 3.0, np.inf, np.nan, np.nan, np.nan]), bins=2)
    assert x.tolist() == [1.0]
    assert y.tolist() == [2.0]


def test_maxima_keep_spikes_and_infinities_and_pass_over_nan() -> None:
    rows = np.ones((100, 2))
    rows[41, 0], rows[43, 1], rows[44, 0] = 50.0, np.inf, np.nan
    cells, (left, right) = maxima(np.arange(1, 401, 4), rows, bins=10)
    assert cells.shape == (2, 10)
    assert cells[0].tolist() == [1, 1, 1, 1, 50, 1, 1, 1, 1, 1]
    assert np.flatnonzero(np.isinf(cells[1])).tolist() == [4]
    assert (left, right) == (-1.0, 399.0)


def test_maxima_leave_lost_stretches_empty_and_fill_all_others() -> None:
    x = np.concatenate([np.arange(0, 400, 4), np.arange(400, 500), np.arange(800, 1000, 4)])
    cells, _ = maxima(x, np.ones((len(x), 1)), bins=100)
    empty = np.flatnonzero(np.isnan(cells[0]))
    assert 25 <= len(empty) <= 31
    assert np.all(np.diff(empty) == 1)


@pytest.mark.parametrize("steps", [[5], [5, 6, 7]])
def test_maxima_of_very_few_steps(steps: list[int]) -> None:
    cells, (left, right) = maxima(np.array(steps), np.ones((len(steps), 3)), bins=100)
    assert cells.shape == (3, len(steps))
    assert left < steps[0] <= steps[-1] < right


def test_clusters() -> None:
    assert clusters(np.array([1, 2, 3, 9, 20, 24]), within=5) == [(1, 3), (9, 9), (20, 24)]
    assert clusters(np.array([], int), within=5) == []


def test_lonely_points_are_found() -> None:
    y = np.array([1.0, np.nan, 2.0, 3.0, np.nan, 4.0])
    assert lonely(y).tolist() == [True, False, False, False, False, True]
