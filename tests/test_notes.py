"""The notes of a release are the newest section of the changelog, if that is ready."""

import pytest

import gradstable as gs
from tests.notes import ROOT, notes

CHANGELOG = """\
# Changelog

## [2.0.0] - 2026-01-31

New.

### Added

- x

## [1.0.0] - 2025-01-01
"""


def test_the_newest_section_is_taken() -> None:
    assert notes("v2.0.0", version="2.0.0", changelog=CHANGELOG) == "New.\n\n### Added\n\n- x\n"


@pytest.mark.parametrize(
    ("tag", "version", "old", "new", "why"),
    [
        ("2.0.0", "2.0.0", "", "", "the tag is 2.0.0, but"),
        ("v2.0.0", "2.1.0", "", "", r"pyproject.toml has version 2\.1\.0"),
        ("v2.1.0", "2.1.0", "", "", r"must be that of 2\.1\.0"),
        ("v2.0.0", "2.0.0", "2026-01-31", "unreleased", "isoformat"),
        ("v2.0.0", "2.0.0", "## [", "## ", "must be that of"),
    ],
)
def test_what_is_not_ready_is_refused(tag: str, version: str, old: str, new: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        notes(tag, version=version, changelog=CHANGELOG.replace(old, new))


def test_the_changelog_of_this_version_has_notes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("unreleased", "2026-01-01")
    assert "### " in notes(f"v{gs.__version__}", version=gs.__version__, changelog=text)
