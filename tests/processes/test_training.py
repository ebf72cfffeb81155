"""Two processes with two devices each are one run: what one of them sees, all decide alike."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.processes import runs
from tests.processes.training import BROKEN, STEPS, transforms

NAMES = tuple(transforms())
# Devices of one process add up in another order than those of two, which is 1e-7 of a gradient of
# the usual size, and more of a small one; Adam makes steps of 2e-3 of both.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def straight(root: Path) -> Path:
    return runs.straight(root)


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_that_one_process_has_read_is_rejected_by_all(straight: Path, name: str) -> None:
    for process in range(2):
        lines = runs.lines(straight, process)
        assert [line["step"] for line in lines] == [*range(STEPS + 1)]
        broken = [line["step"] for line in lines if not line["finite"]]
        assert broken == ([], [*BROKEN])[process]
        for before, after in itertools.pairwise(lines):
            old, new = before["runs"][name], after["runs"][name]
            ((rejected, reason),) = runs.decisions([after], name, fields=("rejected", "reason"))
            if after["step"] in BROKEN:
                assert (rejected, reason) == (1 + BROKEN.index(after["step"]), 1)
                assert (new["params"], new["inner"]) == (old["params"], old["inner"])
            elif after["step"] < 9:
                assert reason == 0
                assert new["params"] != old["params"]
                assert new["inner"] != old["inner"]


@pytest.mark.parametrize("name", NAMES)
def test_all_processes_have_the_same_norm_and_health_to_the_bit(straight: Path, name: str) -> None:
    first, second = (runs.lines(straight, process) for process in range(2))
    for one, other in zip(first, second, strict=True):
        one, other = one["runs"][name], other["runs"][name]
        assert one["seen"] == other["seen"]
        assert one["health"] == other["health"]
        # While what they hold of the parameters is not the same.
        assert one["params"] != other["params"]


@pytest.mark.parametrize("name", NAMES)
def test_each_process_tells_the_same_story_and_holds_a_part(straight: Path, name: str) -> None:
    first, second = (runs.result(straight, process)[name] for process in range(2))
    assert first == second
    assert first["held"] == first["reckoned"]
    # The kernels, which are split over four, are nearly all of it.
    assert first["held"] < 0.27 * first["whole"]
    assert "2 rejected because the gradient had NaN or infinite entries" in first["story"]


def test_all_processes_go_back_to_the_same_copy(straight: Path) -> None:
    for process in range(2):
        story = runs.result(straight, process)["rollback"]["story"]
        assert "Rolled back once, at step 11, to the state before step 3" in story


@pytest.mark.parametrize("name", NAMES)
def test_one_process_with_as_many_devices_trains_alike(root: Path, name: str) -> None:
    two, one = runs.straight(root), runs.alone(root)
    ours, theirs = runs.lines(two, 0), runs.lines(one, 0, name="4")
    assert runs.decisions(ours, name) == runs.decisions(theirs, name)
    np.testing.assert_allclose(runs.losses(ours, name), runs.losses(theirs, name), rtol=TOLERANCE)
    with np.load(two / f"run-{name}.npz") as a, np.load(one / f"4-{name}.npz") as b:
        assert set(a) == set(b)
        for leaf in a:
            np.testing.assert_allclose(a[leaf], b[leaf], rtol=0, atol=TOLERANCE)
