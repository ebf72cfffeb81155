"""What is written is read again, whatever the numbers."""

import math
from pathlib import Path

import numpy as np
from gradstable_gauntlet.results import Fate, Results, cell_from_json, cell_to_json, read, write

from benchmarks.gauntlet.tests.made_up import results


def same(one: Fate, other: Fate) -> None:
    for name, values, again in zip(Fate._fields, one, other, strict=True):
        assert again.dtype == (bool if name == "finite" else np.float64)
        np.testing.assert_allclose(again, values, rtol=1e-4, err_msg=name)


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    before = results()
    write(before, tmp_path / "results.json")
    after = read(tmp_path / "results.json")
    for name in set(Results._fields) - {"cells", "rates"}:
        assert getattr(after, name) == getattr(before, name)
    np.testing.assert_allclose(after.rates, before.rates, rtol=1e-4)
    assert len(after.cells) == len(before.cells)
    seen = set()
    for one, other in zip(after.cells, before.cells, strict=True):
        assert (one.task, one.contestant) == (other.task, other.contestant)
        np.testing.assert_allclose(one.sweep, other.sweep, rtol=1e-4)
        np.testing.assert_allclose([one.rate, one.seconds], [other.rate, other.seconds], rtol=1e-4)
        assert list(one.fates) == list(other.fates)
        for storm, fate in one.fates.items():
            same(fate, other.fates[storm])
            seen |= {str(value) for value in fate.final if not math.isfinite(value)}
        seen |= {str(value) for value in one.sweep.ravel() if not math.isfinite(value)}
    assert seen == {"inf", "nan"}


def test_a_second_file_is_the_same_to_the_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    write(results(), first)
    write(read(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_a_cell_without_numbers_is_read_again() -> None:
    cell = results().cells[0]
    bad = np.array([np.inf, -np.inf, np.nan])
    none = np.array([])
    fate = Fate(bad, np.zeros(3, bool), bad, bad, bad, bad, none)
    again = cell_from_json(cell_to_json(cell._replace(fates={"none": fate}, rate=math.inf)))
    same(again.fates["none"], fate)
    assert again.rate == math.inf
