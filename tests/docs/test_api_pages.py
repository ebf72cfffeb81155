"""Every public name has its place in the documentation, and only one."""

import re
from pathlib import Path

import pytest

from docs._extensions.gradstable_names import names_by_object, public_names

PAGES = Path(__file__).parents[2] / "docs" / "api"
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: gradstable(?:\.([\w.]+))?$", re.MULTILINE)
FENCE = re.compile(r"^```\{eval-rst\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documented() -> list[str]:
    """Return what the pages document, as users type it; the package itself is the empty name."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    blocks = "\n".join(FENCE.findall(text))
    return [name for _, name in DIRECTIVE.findall(blocks)]


@pytest.mark.parametrize("names", names_by_object(), ids=lambda names: names[0])
def test_is_documented_once(names: list[str]) -> None:
    found = [name for name in documented() if name in names]
    assert found, f"docs/api does not document gs.{names[0]}"
    assert len(found) == 1, f"docs/api documents gs.{names[0]} more than once: {found}"


def test_pages_document_nothing_else() -> None:
    assert set(documented()) <= {"", *public_names()}


def test_rooms_are_documented_without_members() -> None:
    """A room whose members were all listed would hide that one has no place in a group."""
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for block in FENCE.findall(text):
            for module in re.findall(r"^\.\. automodule:: .*\n((?:   .*\n)*)", block, re.MULTILINE):
                assert module == "   :no-members:\n", page.name


def test_every_page_is_in_the_overview() -> None:
    overview = (PAGES / "index.md").read_text(encoding="utf-8")
    for page in PAGES.glob("*.md"):
        if page.name == "index.md":
            continue
        assert f"]({page.name})" in overview, f"no link to {page.name}"
        assert f"\n{page.stem}\n" in overview, f"{page.stem} is not in the toctree"


def test_every_group_says_what_is_in_it() -> None:
    for page in PAGES.glob("*.md"):
        title, *_ = page.read_text(encoding="utf-8").split("```{eval-rst}", maxsplit=1)
        prose = [line for line in title.splitlines() if line and not line.startswith("#")]
        assert prose, f"{page.name} begins without a sentence"
