"""Every notebook reads well, installs what it imports, becomes a file for Jupyter, and runs."""

import ast
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs" / "notebooks").glob("*.md") if path.name != "index.md"
)
INSTALL = "%pip install "
WIDEST = 88  # characters of code that a page shows without scrolling
# What can be imported, where it has another name than what is installed, or comes along with it.
MODULES = {
    "gradstable": {"gradstable", "jax", "numpy", "optax"},
    "scikit-learn": {"sklearn"},
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="needs the dependency group docs"
)
each_notebook = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def ipynb(page: Path) -> Any:
    from docs._extensions.notebooks import to_ipynb

    return to_ipynb(page.read_text(encoding="utf-8"))


def code(page: Path) -> str:
    return "\n".join(cell.source for cell in ipynb(page).cells[1:] if cell.cell_type == "code")


def installed(page: Path) -> set[str]:
    """Return the modules that the first cell makes importable."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {"IPython"}
    for requirement in shlex.split(ipynb(page).cells[0].source.removeprefix(INSTALL)):
        name, _, extra = requirement.rstrip("]").partition("[")
        more = project["optional-dependencies"][extra] if extra else []
        for one in (name, *(re.split(r"[^\w-]", line)[0] for line in more)):
            found |= MODULES.get(one, {one})
    return found


@each_notebook
def test_begins_with_what_to_install_and_a_title(page: Path) -> None:
    first, second, *_ = ipynb(page).cells
    assert first.cell_type == "code"
    assert first.source.startswith(INSTALL)
    assert second.source.startswith("# ")


@each_notebook
def test_imports_what_it_installs(page: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(code(page))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names <= installed(page)


@each_notebook
def test_is_a_valid_file_of_text_that_needs_no_pages_around_it(page: Path) -> None:
    import nbformat

    notebook = nbformat.reads(nbformat.writes(ipynb(page)), as_version=4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert ".md" not in text, "a link to a page that a reader does not have"
    assert "{" not in re.sub(r"`[^`]*`|\$[^$]*\$", "", text), "a role or directive of Sphinx"


@each_notebook
def test_its_code_fits_on_the_page(page: Path) -> None:
    assert [line for line in code(page).splitlines() if len(line) > WIDEST] == []


def test_the_index_has_each() -> None:
    index = (ROOT / "docs" / "notebooks" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"]({page.name})" in index
        assert f"\n{page.stem}\n" in index


@pytest.mark.slow
@each_notebook
def test_runs(page: Path, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = ipynb(page)
    del notebook.cells[0]  # everything is installed, and tests have no network
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr", output["text"]
