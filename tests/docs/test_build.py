"""The documentation builds without a warning, and notices what it must not lack."""

import importlib.util
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.docs.site import problems

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("furo") is None, reason="needs the dependency group docs"
)


def build(out: Path, *options: str, source: Path = DOCS) -> subprocess.CompletedProcess[str]:
    # Notebooks are run by `make docs`, and by `make slow` in test_notebooks.py.
    options = "-D", "nb_execution_mode=off", *options
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", *options, source, out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def source(folder: Path, page: str) -> Path:
    """Return a folder with one page, and the settings of our pages."""
    docs = folder / "docs"
    docs.mkdir()
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    (docs / "conf.py").write_text(conf.replace("Path(__file__).parent", f"Path({str(DOCS)!r})"))
    (docs / "index.md").write_text(page, encoding="utf-8")
    return docs


def objects(inventory: Path) -> set[str]:
    """Return the names in a Sphinx inventory, which has four lines of text before the rest."""
    *_, packed = inventory.read_bytes().split(b"\n", maxsplit=4)
    return {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}


def test_builds_without_a_warning(tmp_path: Path) -> None:
    ran = build(tmp_path, "-W", "--keep-going")
    assert ran.returncode == 0, ran.stderr
    assert {"gradstable.guard", "gradstable.rules.log_mad"} <= objects(tmp_path / "objects.inv")
    # A name in prose leads to its entry.
    page = (tmp_path / "quickstart.html").read_text(encoding="utf-8")
    assert 'href="api/guard.html#gradstable.explain"' in page
    assert (tmp_path / "notebooks" / "first_run.ipynb").is_file()
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("formula", "block", "told"),
    [
        ("a_1 < 2", False, "<math><msub><mi>a</mi><mn>1</mn></msub><mo>&lt;</mo><mn>2</mn></math>"),
        (r"a &= 1 \\ b &= 2", True, "<mtable"),
        (r"\text{if } x", False, "<mtext>if\xa0</mtext>"),
        ("g_i'", False, '<mrow><msub><mi>g</mi><mi>i</mi></msub><mo lspace="0" rspace="0">′</mo>'),
    ],
)
def test_formulas_become_mathml(formula: str, block: bool, told: str) -> None:
    from docs._extensions.mathml import mathml

    assert told in mathml(formula, block=block)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("Use `gs.gaurd` always.", "there is no gs.gaurd"),
        ("No page of names.", "gs.guard is public, and documented nowhere"),
        (r"A $\foo$.", r"cannot read the formula \foo"),
    ],
)
def test_warns(tmp_path: Path, page: str, told: str) -> None:
    ran = build(tmp_path / "out", source=source(tmp_path, f"# Title\n\n{page}\n"))
    assert told in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('careful', file=sys.stderr)", "stderr was found in the cell outputs"),
    ],
)
def test_warns_of_a_cell(tmp_path: Path, cell: str, told: str) -> None:
    front = "---\nfile_format: mystnb\nkernelspec: {name: python3}\ninstall: numpy\n---\n\n"
    page = source(tmp_path, f"{front}# Title\n\n```{{code-cell}}\n{cell}\n```\n")
    ran = build(tmp_path / "out", "-D", "nb_execution_mode=force", source=page)
    assert told in ran.stderr
