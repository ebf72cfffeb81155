"""The published results are those of the published code."""

from pathlib import Path

import pytest
from gradstable_gauntlet.entries import entries
from gradstable_gauntlet.league import by_storm, groups, reporting_tasks, together
from gradstable_gauntlet.markdown import harm_to_markdown, to_markdown
from gradstable_gauntlet.measures import bar, survived
from gradstable_gauntlet.results import Results, read

from gradstable._src.cli import main

FOLDER = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def committed() -> Results:
    return read(FOLDER / "results.json.gz")


def test_the_table_is_made_from_the_results(committed: Results) -> None:
    assert (FOLDER / "results.md").read_text(encoding="utf-8") == to_markdown(committed)


def test_the_table_of_harm_is_made_from_its_results() -> None:
    fair = read(FOLDER / "fair.json.gz")
    assert (FOLDER / "fair.md").read_text(encoding="utf-8") == harm_to_markdown(fair)


def test_the_table_of_rates_is_made_from_its_results() -> None:
    rates = read(FOLDER / "rates.json.gz")
    assert (FOLDER / "rates.md").read_text(encoding="utf-8") == to_markdown(rates)


def test_everybody_who_takes_part_is_in_them(committed: Results) -> None:
    known = entries()
    assert set(committed.contestants) == set(known.contestants)
    assert set(committed.storms) == set(known.storms)
    pairs = {(cell.task, cell.contestant) for cell in committed.cells}
    assert pairs == {(task, one) for task in committed.tasks for one in committed.contestants}
    assert all(fate.final.size >= 5 for cell in committed.cells for fate in cell.fates.values())


def test_the_page_says_what_is_in_them(committed: Results) -> None:
    counted = {"corrupted batch", "inf or NaN in the batch", "level shift", "low precision"}
    storms = [one for group in counted for one in groups(committed)[group]]
    rows = {
        cells[0]: cells[1:]
        for line in (FOLDER.parents[2] / "docs/gauntlet.md").read_text("utf-8").splitlines()
        if line.startswith("| ")
        for cells in [[cell.strip(" `") for cell in line.split("|")[1:-1]]]
    }
    for shown, name in {
        "gs.guard(optax.adamw)": "gs.guard(adamw)",
        "gs.govern(gs.guard(optax.adamw))": "gs.govern(gs.guard(adamw))",
        "gs.govern(gs.stable_adamw)": "gs.govern(gs.stable_adamw)",
        "gs.rollback(gs.guard(optax.adamw))": "gs.rollback(gs.guard(adamw))",
        "gs.stable_adamw": "gs.stable_adamw",
        "AXLearn's skip and clip, as published": "skip_and_clip",
        "optax.apply_if_finite` around a clip and AdamW": "apply_if_finite",
        "optax.adaptive_grad_clip` and AdamW": "agc",
        "optax.clip_by_global_norm` and AdamW": "clip",
    }.items():
        for told, own in zip(rows[shown][:2], (False, True), strict=True):
            alive = by_storm(committed, name, reporting_tasks(committed), own=own)
            share = together(alive[storm] for storm in storms)
            assert share.runs == 570
            assert told == f"{share.percent:.1f} ± {share.error:.1f} %", name


def test_nothing_was_tuned_on_what_is_reported(committed: Results) -> None:
    assert not all(about["tuning"] for about in committed.tasks.values())
    assert sum(not about["tuning"] for about in committed.tasks.values()) >= 5


@pytest.mark.slow
def test_a_quick_run_gives_the_published_survival(committed: Results, tmp_path: Path) -> None:
    assert main(["gauntlet", "--quick", "-o", str(tmp_path)]) == 0
    again = read(tmp_path / "results.json")
    compared = 0
    for cell in again.cells:
        published = committed.cell(cell.task, cell.contestant)
        assert published is not None
        for storm, fate in cell.fates.items():
            # By its own: those that set the bar need not be in the quick part.
            now = survived(fate, bar(again, cell, own=True)).sum()
            then = survived(published.fates[storm], bar(committed, published, own=True)).sum()
            assert abs(int(now) - int(then)) <= 1, (cell.task, cell.contestant, storm)
            compared += 1
    assert compared >= 40
