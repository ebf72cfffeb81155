"""Settings by situation are what the committed results say."""

from pathlib import Path

from benchmarks import situations

PAGE = Path(__file__).parents[2] / "docs" / "situations.md"


def test_page_is_that_of_the_results(tmp_path: Path) -> None:
    """After new results: ``python -m benchmarks.situations --markdown docs/situations.md``."""
    situations.main(["--markdown", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_choice_is_the_plainest_that_is_as_good_as_the_best() -> None:
    results = situations.read(situations.FOLDER / "results.json.gz")
    for situation in situations.SITUATIONS:
        found = situations.standings(results, situation)
        chosen = situations.choice(found)
        names = list(situations.OURS)
        best = max(found[name].own.percent for name in names if found[name].clean_cost <= 2.0)
        assert found[chosen].own.percent >= best - 2 * max(one.own.error for one in found.values())
        for plainer in names[: names.index(chosen)]:
            mine = found[plainer]
            assert mine.own.percent < best or mine.clean_cost > 2.0
