"""Check that each public name is documented once, and make links of ``gs.name``.

Text and docstrings write a name as users type it, ``gs.guard``. Here it becomes a link, and a name
that does not exist becomes a warning.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from gradstable_names import names_by_object, resolve
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

_logger = logging.getLogger(__name__)
# A name alone, or a call of it; a pattern such as gs.moments.scale_by_* is not a name.
_NAME = re.compile(r"gs\.([A-Za-z](?:[\w.]*\w)?)(\(.*\))?", re.DOTALL)
_LINKED_OR_TITLE = (nodes.reference, nodes.title)


def check_documented(_: Sphinx, env: BuildEnvironment) -> None:
    """Warn about every public object that is undocumented or documented twice."""
    known = env.domains["py"].data["objects"]
    for same in names_by_object():
        found = [name for name in same if f"gradstable.{name}" in known]
        if len(found) != 1:
            where = f"as {found}" if found else "nowhere"
            _logger.warning("gs.%s is public, and documented %s in docs/api", same[0], where)


def link_names(app: Sphinx, page: nodes.document, docname: str) -> None:
    """Turn every literal on a page that is a public name into a link."""
    for literal in list(page.findall(nodes.literal)):
        match = _NAME.fullmatch(literal.astext())
        if not match or any(isinstance(node, _LINKED_OR_TITLE) for node in _above(literal)):
            continue
        if resolve(match[1]) is None:
            _logger.warning("there is no gs.%s", match[1], location=literal)
        elif link := _link(app, docname, match[1], literal):
            literal.replace_self(link)


def _link(app: Sphinx, docname: str, name: str, shown: nodes.literal) -> nodes.Node | None:
    """Return a link to the longest part of a name that has an entry."""
    domain, options = app.env.domains["py"], pending_xref(refexplicit=True)
    while name:
        target = f"gradstable.{name}", options, shown.deepcopy()
        link = domain.resolve_xref(app.env, docname, app.builder, "obj", *target)
        if link is not None:
            return link
        name = name.rpartition(".")[0]
    return None


def _above(node: nodes.Node) -> Iterator[nodes.Node]:
    while (node := node.parent) is not None:
        yield node


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the check and the links."""
    app.connect("env-check-consistency", check_documented)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
