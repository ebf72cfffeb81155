"""The data: a fair split, and batches that depend on seed and step alone."""

import numpy as np
import pytest

from gradstable._src.cli.demo.data import BATCH_SIZE, Split, batch_at, load_splits


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    return load_splits(0)


def test_parts_are_disjoint_and_complete(splits: tuple[Split, Split]) -> None:
    train, test = splits
    assert sorted([*train.index, *test.index]) == list(range(1797))


def test_parts_have_equal_shares_of_each_digit(splits: tuple[Split, Split]) -> None:
    shares = [np.bincount(part.label, minlength=10) / len(part.label) for part in splits]
    np.testing.assert_allclose(shares[0], shares[1], atol=2e-3)


def test_images_are_between_zero_and_one(splits: tuple[Split, Split]) -> None:
    for part in splits:
        assert part.image.shape == (len(part.label), 8, 8, 1)
        assert part.image.dtype == np.float32
        assert (part.image.min(), part.image.max()) == (0.0, 1.0)


def test_the_seed_decides_on_the_split() -> None:
    (a, _), (b, _), (c, _) = load_splits(1), load_splits(1), load_splits(2)
    np.testing.assert_array_equal(a.index, b.index)
    assert not np.array_equal(a.index, c.index)


def test_a_batch_is_a_function_of_step_and_seed(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    later, again = (batch_at(7, train, seed=3) for _ in range(2))
    for a, b in zip(later, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(later.image, batch_at(8, train, seed=3).image)
    assert not np.array_equal(later.image, batch_at(7, train, seed=4).image)


def test_an_epoch_shows_no_image_twice(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    # Labels that are row numbers tell which rows come.
    numbered = train._replace(label=np.arange(len(train.label)))
    steps = range(1, len(train.label) // BATCH_SIZE + 1)
    seen = np.concatenate([batch_at(step, numbered, seed=0).label for step in steps])
    assert len(set(seen)) == len(seen)


def test_a_shift_moves_by_one_pixel_and_loses_nothing_inside(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    dot = np.zeros_like(train.image)
    dot[:, 4, 4] = 1.0
    moved = batch_at(1, train._replace(image=dot), seed=0).image
    assert moved.sum(axis=(1, 2, 3)).tolist() == [1.0] * BATCH_SIZE
    _, rows, columns, _ = np.nonzero(moved)
    assert set(rows) == set(columns) == {3, 4, 5}
