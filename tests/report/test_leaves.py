"""The map of leaves: which are shown, and under what names."""

from pathlib import Path

import pytest

from gradstable._src.report.leaves import MOST_LEAVES, chosen, leaf_norms, short_path
from tests.report.running import rejected, steps, write_run


@pytest.mark.parametrize(
    ("path", "letters", "short"),
    [
        ("['conv1']['kernel']", 30, "conv1/kernel"),
        (".layers[3].mlp['w']", 30, "layers/3/mlp/w"),
        ("", 30, ""),
        ("['w']", 30, "w"),
    ],
)
def test_short_paths(path: str, letters: int, short: str) -> None:
    assert short_path(path, letters=letters) == short


@pytest.mark.parametrize(
    "path", ["['encoder']['block_11']['attention']['query']['kernel']", "x" * 90]
)
@pytest.mark.parametrize("letters", [8, 18, 32])
def test_long_paths_keep_both_ends(path: str, letters: int) -> None:
    short = short_path(path, letters=letters)
    whole = short_path(path, letters=1000)
    assert len(short) <= letters
    begin, _, end = short.partition("…")
    assert begin
    assert end
    assert whole.startswith(begin)
    assert whole.endswith(end)


def test_few_leaves_are_all_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", steps(20, leaves=6), leaves=6)
    assert chosen(run) == list(range(6))
    assert "Shown are" not in leaf_norms(run).reading


def test_of_many_leaves_the_telling_ones_are_shown(tmp_path: Path) -> None:
    norms: list[object] = [1.0] * 400
    norms[399], norms[7] = "nan", 50.0
    faults = {5: {"leaf_norms": norms}, 6: rejected(worst_leaf=300)}
    run = write_run(tmp_path / "run.jsonl", steps(20, leaves=400, faults=faults), leaves=400)
    rows = chosen(run)
    assert len(rows) == MOST_LEAVES
    assert rows == sorted(rows)
    assert {399, 300, 7} <= set(rows)
    assert f"Shown are {MOST_LEAVES} of 400 leaves" in leaf_norms(run).reading
