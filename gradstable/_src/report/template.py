"""The page around the charts: style sheet, scripts and data, with nothing loaded from outside."""

import functools
import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any

from gradstable._src.report.theme import style_sheet

# In the order in which they need each other. uPlot (MIT license) draws the charts.
_SCRIPTS = (
    "uplot.min.js", "data.js", "view.js", "frame.js", "marks.js", "lines.js", "heat.js", "bars.js",
    "page.js",
)  # fmt: skip

# The policy forbids the page to load anything, even by mistake.
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>$title</title>
<style>
$style</style>
</head>
<body$reload>
<header>
<div><h1>$title</h1>
$under</div>
<button id="theme" type="button" hidden>Theme</button>
</header>
<main>
$body
</main>
<footer class="soft">$foot</footer>
$data<script>
(() => {
"use strict";
$script})();
</script>
</body>
</html>
""")
_NO_SCRIPT = (
    '<noscript><p class="card">Charts need JavaScript; everything else on this page is complete.'
    "</p></noscript>"
)
# Hidden until the script has something to show in it.
_VIEW = """\
<div id="view" role="toolbar" aria-label="Steps in view" hidden><output></output>
<button type="button" data-do="left" aria-label="Earlier steps" title="Earlier steps">◀</button>
<button type="button" data-do="in" aria-label="Zoom in" title="Zoom in">+</button>
<button type="button" data-do="out" aria-label="Zoom out" title="Zoom out">−</button>
<button type="button" data-do="right" aria-label="Later steps" title="Later steps">▶</button>
<button type="button" data-do="all" title="Or double-click a chart">All</button>
</div>
"""


def page(
    *,
    title: str,
    under: str,
    body: str,
    foot: str,
    style: str = "",
    data: Mapping[str, Any] | None = None,
    reload: float | None = None,
) -> str:
    """Return the whole page.

    Args:
      title: the title, as plain text.
      under: the HTML below the title.
      body: the HTML of everything else.
      foot: the footer, as plain text.
      style: additions to the style sheet that all pages share.
      data: what the scripts draw, see ``chart.to_json``; ``None`` if there are no charts.
      reload: after how many seconds the page reloads itself; ``None`` for never.

    Returns:
      A self-contained document.
    """
    drawn = data is not None
    sheets = [*([_asset("uplot.min.css")] if drawn else []), _asset("page.css"), style]
    return _PAGE.substitute(
        title=escape(title),
        under=under,
        body=(_NO_SCRIPT + _VIEW if drawn else "") + body,
        foot=escape(foot),
        style="\n".join([style_sheet(), *sheets]),
        reload="" if reload is None else f' data-reload="{reload:g}"',
        data=_json(data) if drawn else "",
        script="\n".join(
            _asset(name) for name in (("theme.js", *_SCRIPTS) if drawn else ("theme.js",))
        ),
    )


def facts(pairs: dict[str, str]) -> str:
    """Return names and values in a line that wraps."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in pairs.items()
    )
    return f'<dl class="facts soft">{items}</dl>' if items else ""


@functools.cache
def _asset(name: str) -> str:
    return resources.files("gradstable._src.report").joinpath("assets", name).read_text("utf-8")


def _json(data: Mapping[str, Any]) -> str:
    # A browser looks for the end of a script before it reads what is inside.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{text}</script>\n'
