"""The storm: only data is touched, only at its steps, and always in the same way."""

import numpy as np
import pytest

from gradstable._src.cli.demo.data import Batch
from gradstable._src.cli.demo.faults import STORM, bad_steps, plant, planted


@pytest.fixture
def batch(rng: np.random.Generator) -> Batch:
    return Batch(
        image=rng.uniform(0.1, 1.0, size=(64, 8, 8, 1)).astype(np.float32),
        label=rng.integers(10, size=64).astype(np.int32),
        weight=np.ones(64, np.float32),
    )


def test_the_first_fault_is_at_batch_20() -> None:
    assert bad_steps(STORM)[0] == 20


def test_faults_do_not_overlap() -> None:
    assert len(set(bad_steps(STORM))) == len(bad_steps(STORM))


def test_good_steps_are_left_alone(batch: Batch) -> None:
    for step in set(range(1, 501)) - set(bad_steps(STORM)):
        assert plant(batch, step, faults=STORM, seed=0) is batch


@pytest.mark.parametrize("step", bad_steps(STORM))
def test_a_fault_is_a_function_of_step_and_seed(batch: Batch, step: int) -> None:
    before = [array.copy() for array in batch]
    first, second = (plant(batch, step, faults=STORM, seed=5) for _ in range(2))
    for old, array, a, b in zip(before, batch, first, second, strict=True):
        np.testing.assert_array_equal(old, array)  # the good batch serves the others
        np.testing.assert_array_equal(a, b)
        assert (a.dtype, a.shape) == (array.dtype, array.shape)
    assert any(not np.array_equal(old, a) for old, a in zip(before, first, strict=True))


def test_each_fault_does_what_it_says(batch: Batch) -> None:
    gain, pixel, labels, dead = (plant(batch, fault.first, faults=STORM, seed=0) for fault in STORM)
    np.testing.assert_array_equal(gain.image, batch.image * np.float32(1e4))
    assert np.isnan(pixel.image).sum() == 1
    assert not np.any(labels.label == batch.label)
    assert set(labels.label) <= set(range(10))
    np.testing.assert_array_equal(labels.weight, np.full(64, 1e4, np.float32))
    assert np.isnan(dead.image).all()


@pytest.mark.parametrize(
    ("steps", "bad"),
    [(1, []), (19, []), (20, [20]), (30, [20]), (221, [20, 120, 220, 221])],
)
def test_faults_beyond_the_end_are_not_planted(steps: int, bad: list[int]) -> None:
    assert bad_steps(planted(steps)) == bad
