"""Medians of what came before, against one median after the other."""

import numpy as np
import pytest

from gradstable._src.doctor.order import medians_before


@pytest.mark.parametrize("number", [1, 2, 3, 17, 64, 65, 500])
def test_it_is_the_median_of_the_finite_values_before(
    number: int, rng: np.random.Generator
) -> None:
    values = np.round(rng.standard_normal(number), 1)  # with many that are equal
    values[rng.random(number) < 0.2] = np.nan
    values[rng.random(number) < 0.05] = np.inf
    rows = np.concatenate([rng.permutation(number), [0, number]])
    found = medians_before(values, rows)
    for row, median in zip(rows, found, strict=True):
        before = values[:row][np.isfinite(values[:row])]
        np.testing.assert_array_equal(median, np.median(before) if before.size else np.nan)


def test_nothing_before_is_not_known() -> None:
    assert np.isnan(medians_before(np.full(5, np.nan), np.array([0, 3, 5]))).all()
    assert medians_before(np.ones(5), np.array([], int)).size == 0
