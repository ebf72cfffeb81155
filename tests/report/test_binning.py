"""Fewer points: no spike is lost, no gap is bridged."""

import numpy as np
import pytest

from gradstable._src.report.binning import extremes, maxima, medians, merged, some, stretches


def test_no_spike_is_lost(rng: np.random.Generator) -> None:
    x = np.arange(1, 100_001)
    y = rng.standard_normal(100_000)
    up, down = [7, 50_000, 99_999], [8, 31_234]
    y[up], y[down] = 100.0, -100.0
    rows = extremes(x, y, bins=400)
    assert 400 < len(rows) <= 800
    assert {*up, *down} <= set(rows.tolist())
    assert np.all(np.diff(rows) > 0)


def test_each_bin_keeps_its_ends(rng: np.random.Generator) -> None:
    x, y = np.sort(rng.choice(5000, 900, replace=False)), rng.standard_normal(900)
    y[rng.integers(900, size=100)] = np.nan
    place = ((x - x[0]) / ((x[-1] - x[0] + 1) / 50)).astype(int)
    rows = set(extremes(x, y, bins=50).tolist())
    for cell in range(50):
        here = np.flatnonzero((place == cell) & np.isfinite(y))
        if here.size:
            assert {here[np.argmin(y[here])], here[np.argmax(y[here])]} <= rows


def test_what_is_not_finite_gives_way_to_what_is() -> None:
    y = np.array([np.inf, 1.0, np.nan, 2.0, -np.inf])
    assert {1, 3} <= set(extremes(np.arange(5), y, bins=1).tolist())


def test_a_bin_of_nothing_but_nan_has_a_row() -> None:
    y = np.ones(1000)
    y[200:400] = np.nan
    rows = extremes(np.arange(1000), y, bins=10)
    assert ((rows >= 200) & (rows < 400)).any()
    assert extremes(np.arange(0), np.zeros(0), bins=3).size == 0


def test_some_are_spread_over_all() -> None:
    rows = np.arange(0, 3000, 3)
    few = some(rows, most=10)
    assert few[[0, -1]].tolist() == [0, 2997]
    assert len(few) == 10
    assert some(rows, most=1000) is rows


def test_stretches_and_merged_spans() -> None:
    first, last = stretches(np.array([1, 1, 0, 1, 0, 0, 1], bool))
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 1), (3, 3), (6, 6)]
    assert merged([(9, 10), (1, 2), (4, 5)], within=2) == [(1, 5), (9, 10)]


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
