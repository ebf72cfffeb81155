"""How a figure of matplotlib becomes one SVG for both a light and a dark theme.

matplotlib draws with placeholder colors; in the text of the SVG they are replaced with
``var(--name)``, and the style sheet of the page defines these names.
"""

import io
import re
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gradstable._src.report.theme import PALETTE

_BLUE = 0x5A  # no color above uses this channel value
_STANDS_FOR = {name: f"#{16 + row:02x}a5{_BLUE:02x}" for row, name in enumerate(PALETTE)}
FONT = 11.5  # points of a figure, pixels of the page

_SETTINGS: dict[Any, Any] = {
    "text.color": _STANDS_FOR["ink"],
    "axes.labelcolor": _STANDS_FOR["soft"],
    "axes.edgecolor": _STANDS_FOR["line"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _STANDS_FOR["line"],
    "ytick.color": _STANDS_FOR["line"],
    "xtick.labelcolor": _STANDS_FOR["soft"],
    "ytick.labelcolor": _STANDS_FOR["soft"],
    "grid.color": _STANDS_FOR["grid"],
    "grid.linewidth": 1.0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "font.size": FONT,
    "hatch.linewidth": 1.0,
    "hatch.color": _STANDS_FOR["line"],
    "ytick.left": False,
    "ytick.minor.left": False,
    # Text stays text: it can be searched, read aloud, and set in the font of the page.
    "svg.fonttype": "none",
}


def color(name: str) -> str:
    """Return the color to draw with that becomes this name of the palette."""
    return _STANDS_FOR[name]


def settings() -> Any:
    """Return the context in which figures are made."""
    return mpl.rc_context(_SETTINGS)


def to_svg(figure: Figure, *, key: str, label: str, classes: str = "") -> str:
    """Return a figure as an SVG element for a page.

    Args:
      figure: a figure drawn in ``settings()``, using only colors from ``color``.
      key: a name unique among the figures of the page.
      label: a description of the picture for readers who cannot see it.
      classes: classes for the style sheet.

    Returns:
      The element, which refers to nothing outside itself and has no fixed size.
    """
    buffer = io.StringIO()
    fields = ("Date", "Creator", "Format", "Type")
    # No date and no random names: the same run gives the same page.
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(fields))
    svg = buffer.getvalue()
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    for name, stand_in in _STANDS_FOR.items():
        body = body.replace(stand_in, f"var(--{name})")
    opening = (
        f'<svg class="{escape(classes)}" viewBox="{view.group(1)}" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return f"{opening}{_tidy(body, key)}</svg>"


def _tidy(body: str, key: str) -> str:
    """Drop what a browser does not need, and make names unique on the page."""
    # The style would apply to all elements of the document, which here is the whole page.
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}-{match.group(1)}"' if match.group(1) in used else ""

    body = re.sub(r' id="([^"]*)"', rename, body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", body)
    # A tenth of a pixel is precise enough, except in the matrix that stretches an image.
    body = re.sub(r' (?:d|x|y)="[^"]*"', _round, body)
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", body))


def _round(match: re.Match[str]) -> str:
    return re.sub(r"(\d+\.\d)\d+", r"\1", match.group())
