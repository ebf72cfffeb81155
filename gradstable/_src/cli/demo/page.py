"""The report as one page that needs nothing else: no script, no font, no picture from outside."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from gradstable._src.cli.demo.plots import to_svg
from gradstable._src.cli.demo.race import Race
from gradstable._src.cli.demo.summary import (
    HEADER,
    accounts,
    command,
    conclusions,
    setting,
    table,
    versions,
)

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>gradstable demo</title>
<style>
:root { --ink: #222; --soft: #555; --paper: #fff; --line: #ddd; --panel: #f6f6f4; --good: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a9adb3; --paper: #16181c; --line: #3c3f44; --panel: #1f2227;
    --good: #56b4e9; }
}
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.2rem; font-size: 1.2rem; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
.results td:nth-child(n+2):nth-child(-n+5), .results th:nth-child(n+2):nth-child(-n+5) {
  text-align: right; }
tr.guard td { color: var(--good); font-weight: 600; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { padding: .8rem 1rem; background: var(--panel); border-radius: .4rem; white-space: pre-wrap; }
img { width: 100%; height: auto; }
</style>
</head>
<body>
<h1>A run through a storm of bad batches</h1>
<p>$setting</p>
<ul>
$conclusions
</ul>

<h2>What became of them</h2>
<div class="scroll"><table class="results">
$results
</table></div>

<h2>Step by step</h2>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="$dark">
<img src="$light" alt="Three plots over the steps of training: the loss of each batch, the \
accuracy on the test images, and the gradient norm of the guarded run with its threshold.">
</picture>
<p class="soft">Shaded: bad batches. A cross at the top: from here on, for as long as its line, the
value is NaN or infinite. The loss of a bad batch is bad for everyone; what counts is what follows
it.</p>

<h2>What was planted, and what the guard did</h2>
<div class="scroll"><table>
$accounts
</table></div>

<h2>What the guard says</h2>
<pre>$explanation</pre>

<h2>The contestants</h2>
<div class="scroll"><table>
$code
</table></div>

<h2>Do it again</h2>
<pre>$command</pre>
<p class="soft">$versions. Took $seconds s. On another machine the last digits may differ.</p>
</body>
</html>
""")


def to_html(race: Race) -> str:
    """Return the page."""
    outcomes = race.outcomes
    return _PAGE.substitute(
        setting=escape(setting(race)),
        conclusions="\n".join(f"<li>{escape(line)}</li>" for line in conclusions(race)),
        results=_table(HEADER, table(race), classes=outcomes),
        dark=_data_uri(to_svg(race, dark=True)),
        light=_data_uri(to_svg(race, dark=False)),
        accounts=_table(("step", "what was wrong with the data", "the guard"), accounts(race)),
        explanation=escape(outcomes["guard"].explanation or ""),
        code=_table(
            ("contestant", "optimizer", "faults"),
            [
                (
                    outcome.contestant.name,
                    outcome.code,
                    "yes" if outcome.contestant.storm else "no",
                )
                for outcome in outcomes.values()
            ],
        ),
        command=escape(command(race)),
        versions=escape(", ".join(f"{name} {number}" for name, number in versions().items())),
        seconds=f"{race.seconds:.0f}",
    )


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, classes: Iterable[str] = ()
) -> str:
    """Return the inside of a table; ``classes`` names its rows, for the style sheet."""
    names = iter(classes)
    lines = [_cells("th", header)]
    for row in rows:
        name = next(names, "")
        lines.append(_cells("td", row, row_class=name))
    return "\n".join(lines)


def _cells(tag: str, texts: Sequence[str], *, row_class: str = "") -> str:
    opening = f'<tr class="{escape(row_class)}">' if row_class else "<tr>"
    cells = "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
    return f"{opening}{cells}</tr>"


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
