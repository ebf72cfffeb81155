"""The committed catalog page tells what the registry tells."""

import inspect
import re

import pytest

from benchmarks.catalog import PAGE, measured, state_words
from tests.registry import Entry, entries, resolve

ROWS = {
    cells[1].strip(): [cell.strip() for cell in cells]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `gs.") and (cells := line.replace("\\|", "∣").split("|"))
}


def test_catalog_has_one_row_a_name() -> None:
    assert sorted(ROWS) == sorted(f"`gs.{entry.name}`" for entry in entries()), "make catalog"


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_row_is_up_to_date(entry: Entry) -> None:
    _, _, source, state, words, promise, weakness, _ = ROWS[f"`gs.{entry.name}`"]
    expected = [text.replace("|", "∣") for text in (entry.source, entry.promise, entry.weakness)]
    assert [source, promise, weakness] == expected, "make catalog"
    tx = measured(entry)
    assert bool(words) == (tx is not None)
    if tx is not None:
        assert state == f"{state_words(tx):.1f}", "make catalog"


@pytest.mark.parametrize(
    ("name", "words"),
    [("scale_by_laprop", 2.0), ("scale_by_rms", 1.0), ("rmsprop", 1.0), ("sgd", 0)],
)
def test_pitfall_state_is_that_of_the_defaults(name: str, words: float) -> None:
    """And not of the case that the tests try first, which may keep moments in 16 bits."""
    (entry,) = (entry for entry in entries() if entry.short == name)
    tx = measured(entry)
    assert tx is not None
    assert state_words(tx) == words


MEASURED = [
    entry
    for entry in entries()
    if entry.cases and entry.family in ("Moments", "Modern moments", "Recipes")
]


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry.name)
def test_state_in_the_catalog_is_that_of_the_defaults(entry: Entry) -> None:
    made = resolve(entry.name)(**entry.required)
    assert f"{state_words(entry.cases[0].tx):.1f}" == f"{state_words(made):.1f}"


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry.name)
def test_bound_in_the_catalog_is_that_of_the_docstring(entry: Entry) -> None:
    if not re.search(r"\bstep is (bounded|at most)", entry.promise):
        return
    told = re.findall(r"\d+\.\d+", entry.promise)
    for number in told:
        assert number in inspect.getdoc(resolve(entry.name)), number  # pyright: ignore[reportOperatorIssue]


def test_every_entry_says_what_defeats_it() -> None:
    for entry in entries():
        for text in (entry.source, entry.promise, entry.weakness):
            assert text, f"{entry.name} leaves a cell of the catalog empty"
            assert not text.endswith("."), f"{entry.name}: {text}"
