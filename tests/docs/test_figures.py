"""A number that is told in more than one place is found in one, and the same everywhere."""

import inspect
import re
from pathlib import Path

import pytest

import gradstable as gs
from benchmarks.figures import FIGURES, PAGE, QUOTE, ROOT, put, quoting, written

PAGES = {path.relative_to(ROOT).as_posix(): path for path in quoting()}
# To compile steps of millions of parameters takes seconds, and tests/benchmarks holds them too.
COMPILED = [name for name in FIGURES if name.endswith(".words")]
CLAIMS = {
    # A claim on the default rule, and the numbers that it may have: in pages and in docstrings.
    r"(\d+|\w+) robust\s+standard\s+deviations above(?: the median)?, rejects": "log_mad.clip_at",
    r"let\s+through\s+after\s+([\d to]+)\s+steps": "log_mad.release_x30",
    r"(\d+|\w+) (?:optax optimizers|optimizers (?:of|from) optax)": "optax.count",
    r"(\d+|\w+) rules: robust": "rules.count",
    r"(?<![.\d])(\d+) words? moved per\s+parameter (?:instead|where|with)": "guard.words",
    r"(0[\d.]+) words? (?:a|per)\s+parameter": "record.words",
    r"the tests hold all (\d+|\w+)": "doctor.diagnoses",
}


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in COMPILED])
def test_the_page_says_what_is_found(name: str) -> None:
    assert written()[name] == FIGURES[name].find(), "python -m benchmarks.figures"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_the_page_says_what_is_compiled(name: str) -> None:
    assert written()[name] == FIGURES[name].find(), "python -m benchmarks.figures"


def test_the_page_has_all_figures_and_no_other() -> None:
    assert list(written()) == list(FIGURES), "python -m benchmarks.figures"


@pytest.mark.parametrize("page", PAGES)
def test_pages_quote_what_the_page_says(page: str) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    assert text.count("<!-- figure:") == len(QUOTE.findall(text)), "a quote without its end"
    assert text == put(text, written()), "python -m benchmarks.figures"


def test_every_figure_is_quoted() -> None:
    quoted = {name for path in PAGES.values() for _, name, _, _ in QUOTE.findall(path.read_text())}
    unread = {"log_mad.release_x3", "log_mad.release_x1000"}
    assert quoted == FIGURES.keys() - unread


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_a_quote(claim: str) -> None:
    """Typed in by hand it would be as right as the day it was typed."""
    name = CLAIMS[claim]
    seen = 0
    for page, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        plain = QUOTE.sub(lambda found: f"\0{found[3]}\0", text)
        by_hand = re.search(claim, plain)
        assert by_hand is None, f"{page}: {by_hand and by_hand[0]!r} is no quote of {name}"
        seen += len(re.findall(claim, QUOTE.sub(lambda found: found[3], text)))
    assert seen, f"nothing makes this claim anymore: {claim}"


def test_docstrings_point_to_the_page_and_repeat_no_release() -> None:
    for path in sorted((ROOT / "gradstable").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"default\s+rule[^.]*\s(\d+)\s+steps", text):
            pytest.fail(f"{path.relative_to(ROOT)} repeats a figure: {found[0]!r}")
    told = inspect.getdoc(gs.rules.log_mad) or ""
    assert "docs/figures" in told
    assert "docs/figures" in (inspect.getdoc(gs.check) or "")
    assert f"Default {written()['log_mad.clip_at']}:" in told
    assert f"Default {written()['log_mad.reject_at']}." in told
    assert f"Default {written()['log_mad.reject_above']}, so" in told


def test_patience_outlasts_the_slowest_release() -> None:
    patience = inspect.signature(gs.check).parameters["patience"].default
    assert int(written()["log_mad.largest_x1000"]) < patience
    assert Path(PAGE).name == "figures.md"
