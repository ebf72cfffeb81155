"""The page around the charts: style sheet and theme button, with nothing loaded from outside."""

from html import escape
from string import Template

from gradstable._src.report.theme import style_sheet

_STYLE = """\
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.6rem 1.25rem 3rem; max-width: 1080px; color: var(--ink);
  background: var(--paper); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1, h2, p, dl, dd, ul, figure { margin: 0; padding: 0; }
h1 { font-size: 1.55rem; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.06rem; line-height: 1.3; }
.soft { color: var(--soft); font-size: .9rem; }
header { display: flex; justify-content: space-between; align-items: start; gap: 1rem; }
button { flex: none; font: inherit; font-size: .87rem; padding: .35rem .8rem; cursor: pointer;
  color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 99px; }
button:hover, button:focus-visible { border-color: var(--main); }
:focus-visible { outline: 2px solid var(--main); outline-offset: 2px; }
.verdict { display: flex; gap: .8rem; align-items: start; margin: 1.1rem 0; padding: .8rem 1.1rem;
  font-size: 1.05rem; background: var(--card); border: 1px solid var(--line);
  border-left: 5px solid var(--tone); border-radius: 10px; overflow-wrap: anywhere; }
.verdict span { flex: none; font-weight: 700; color: var(--tone); }
.tiles { display: grid; gap: .7rem; margin: 0 0 1.1rem;
  grid-template-columns: repeat(5, minmax(0, 1fr)) minmax(0, 1.9fr); }
.tiles div { padding: .65rem .9rem .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; min-width: 0; }
.tiles dt { color: var(--soft); font-size: .84rem; }
.tiles .value { font-size: 1.45rem; line-height: 1.3; font-weight: 650; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tiles .path { font: 600 .92rem/1.35 ui-monospace, "DejaVu Sans Mono", monospace;
  padding: .3rem 0 .2rem; letter-spacing: 0; }
.tiles .bad { color: var(--bad); } .tiles .warn { color: var(--warn); }
.card { margin: 1.1rem 0; padding: 1rem 1.2rem 1.1rem; background: var(--card); min-width: 0;
  border: 1px solid var(--line); border-radius: 12px; }
.card > .soft { max-width: 46rem; margin: .15rem 0 .55rem; }
.two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.1rem; }
.two .card { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.15rem; list-style: none; font-size: .87rem;
  margin: 0 0 .3rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.key { width: 24px; height: 14px; fill: none; stroke: currentColor; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font-family: inherit; }
.chart path { stroke-linejoin: round; }
.narrow { display: none; }
.nothing { padding: .4rem 0; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin-top: .4rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
.steps, .kind { white-space: nowrap; }
.kind .key { vertical-align: -1px; }
code { font: .92em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.bar { display: block; height: 7px; border-radius: 4px; margin-top: .25rem; min-width: 3px; }
.facts { display: flex; flex-wrap: wrap; gap: .1rem 1.3rem; }
.facts div { display: flex; gap: .45rem; } .facts dt { color: var(--soft); }
footer { margin-top: 1.4rem; }
@media (max-width: 860px) {
  .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .tiles div:last-child:nth-child(6) { grid-column: 1 / -1; }
  .two { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 640px) {
  body { padding: 1rem .7rem 2rem; }
  .wide { display: none; } .narrow { display: block; }
  .card { padding: .8rem .8rem .9rem; }
  .tiles { gap: .5rem; } .tiles div { padding: .5rem .65rem; }
  .tiles .value { font-size: 1.15rem; }
  .events thead { display: none; }
  .events tr { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: .45rem 0;
    border-bottom: 1px solid var(--line); }
  .events td { padding: 0; border: 0; }
  .events td:nth-child(n+3) { flex: 1 0 100%; }
  .events .leaf:empty { display: none; }
}
@media print { button { display: none; } .card { break-inside: avoid; } }
"""

# The choice is stored if the browser allows it, which it may not for a page from disk.
_SCRIPT = """\
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const show = () => {
    button.textContent = dark() ? "\\u2600 Light" : "\\u263e Dark";
    button.setAttribute("aria-label", dark() ? "Use the light theme" : "Use the dark theme");
  };
  try {
    const kept = localStorage.getItem("gradstable-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* no store: the theme of the system */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("gradstable-theme", root.dataset.theme); } catch { /* as above */ }
    show();
  });
  system.addEventListener("change", show);
  show();
})();
"""

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
$colors
$style</style>
</head>
<body>
<header>
<div><h1>$title</h1>
$under</div>
<button id="theme" type="button" hidden>Theme</button>
</header>
<main>
$body
</main>
<footer class="soft">$foot</footer>
<script>
$script</script>
</body>
</html>
""")


def page(*, title: str, under: str, body: str, foot: str, style: str = "") -> str:
    """Return the whole page.

    Args:
      title: the title, as plain text.
      under: the HTML below the title.
      body: the HTML of everything else.
      foot: the footer, as plain text.
      style: additions to the style sheet that all pages share.

    Returns:
      A self-contained document.
    """
    return _PAGE.substitute(
        title=escape(title),
        under=under,
        body=body,
        foot=escape(foot),
        colors=style_sheet(),
        style=_STYLE + style,
        script=_SCRIPT,
    )


def facts(pairs: dict[str, str]) -> str:
    """Return names and values in a line that wraps."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in pairs.items()
    )
    return f'<dl class="facts soft">{items}</dl>' if items else ""
