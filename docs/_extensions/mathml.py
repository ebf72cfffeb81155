"""Write formulas as MathML, which browsers lay out by themselves: no script, no network.

A formula that cannot be read is a warning, and so fails the build.
"""

import re
from html import escape, unescape
from xml.etree import ElementTree as ET

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_logger = logging.getLogger(__name__)
_HTML_ENTITY = re.compile(r"&(?!lt;|gt;|amp;)\w+;")  # which XML does not know
_PRIMES = ("′", "″", "‴")
_converter = LatexToMathML(fancy_error=False)


def mathml(latex: str, *, block: bool = False) -> str:
    """Return a formula as a ``<math>`` element; raises ``LatexError``."""
    if block and r"\\" in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    written = _converter.convert_with_local_state(latex, displaystyle=block)
    root = ET.fromstring(_HTML_ENTITY.sub(lambda found: unescape(found[0]), written))
    for raised in [*root.iter("msup"), *root.iter("msubsup")]:
        _lower_prime(raised)
    return ET.tostring(root, encoding="unicode")


def _lower_prime(raised: ET.Element) -> None:
    # Fonts draw a prime raised and small already: as a superscript it would be so twice.
    *base, prime = raised
    if prime.text not in _PRIMES:
        return
    raised.tag = "mrow"
    if len(base) == 2:
        lowered = ET.Element("msub")
        lowered.extend(base)
        raised[:] = [lowered, prime]
    prime.attrib |= {"lspace": "0", "rspace": "0"}


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_element(node))
    raise nodes.SkipNode


def _visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_element(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _element(node: nodes.Element, *, block: bool = False) -> str:
    try:
        return mathml(node.astext(), block=block)
    except LatexError as error:
        _logger.warning("cannot read the formula %s: %s", node.astext(), error, location=node)
        return f"<code>{escape(node.astext())}</code>"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer, which ``html_math_renderer`` in conf.py names."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(_visit_inline, None),
        block_renderers=(_visit_block, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
