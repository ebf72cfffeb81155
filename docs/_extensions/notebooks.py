"""Offer each notebook for download as ``.ipynb``, which is written at each build.

A notebook is a page in MyST Markdown with cells. Its front matter says in ``install`` what a reader
has to install: a line at the top of the page says it too, and so does the first cell of the file.
"""

import re
import shlex
from pathlib import Path

import nbformat
from docutils import nodes
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx

# A reader has the notebook without the pages around it: links to them keep their text only.
_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)[^)]*\)")


def to_ipynb(text: str) -> nbformat.NotebookNode:
    """Return a page as a notebook that runs elsewhere; its first cell installs what it needs."""
    notebook = read_myst_markdown_notebook(text)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%{install_command(notebook)}"))
    del notebook.metadata["file_format"], notebook.metadata["install"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not random, so that two builds write the same file
        if cell.cell_type == "markdown":
            cell.source = _RELATIVE_LINK.sub(r"\1", cell.source)
    return notebook


def install_command(notebook: nbformat.NotebookNode) -> str:
    """Return the command that installs what a notebook needs."""
    return f"pip install {shlex.join(notebook.metadata['install'].split())}"


def write_all(app: Sphinx, error: Exception | None) -> None:
    """Write the files next to the pages."""
    if error or app.builder.format != "html":
        return
    for docname in app.env.found_docs:
        if text := _notebook(app, docname):
            target = Path(app.outdir, docname).with_suffix(".ipynb")
            nbformat.write(to_ipynb(text), target)


def add_link(app: Sphinx, page: nodes.document, docname: str) -> None:
    """Put a line with the link and the command below the title."""
    text = _notebook(app, docname)
    title = page.next_node(nodes.title)
    if not text or title is None or app.builder.format != "html":
        return
    file = f"{Path(docname).name}.ipynb"
    button = ["sd-btn", "sd-btn-primary"]
    link = download_reference("", f"Download {file}", refuri=file, classes=button)
    line = nodes.paragraph("", "", link, nodes.Text(" needs "), classes=["notebook"])
    line += nodes.literal("", install_command(read_myst_markdown_notebook(text)))
    title.parent.insert(title.parent.index(title) + 1, line)


def _notebook(app: Sphinx, docname: str) -> str | None:
    text = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
    return text if is_myst_markdown_notebook(text) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the links and the files."""
    app.connect("doctree-resolved", add_link)
    app.connect("build-finished", write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
