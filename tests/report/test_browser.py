"""The page in a real browser: every chart has a size, both themes work, no complaint."""

import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_screenshot import browse, chromium
from gradstable.report import render
from tests.report.running import steps, stormy, write_run

REQUIRED = os.environ.get("GRADSTABLE_BROWSER") == "required"
WIDE, NARROW = (1100, 900), (500, 900)  # no window is narrower where there is no screen
PAPER = {"light": "rgb(244, 245, 247)", "dark": "rgb(14, 17, 22)"}

# Runs behind the script of the page, and leaves what it saw where --dump-dom shows it.
_MEASURE = """
<pre id="measured"></pre>
<script>
const look = () => ({
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector(".chart text") ?? document.body).fill,
  button: document.getElementById("theme").textContent,
});
const size = (one) => { const box = one.getBoundingClientRect(); return [box.width, box.height]; };
const seen = {
  charts: [...document.querySelectorAll("section")].map((section) => ({
    id: section.id,
    sizes: [...section.querySelectorAll(".chart")].map(size),
    labels: [...section.querySelectorAll(".chart")].map((one) => one.getAttribute("aria-label")),
  })),
  curves: [...document.querySelectorAll(".chart path")].filter((one) => size(one)[0] > 50).length,
  maps: [...document.querySelectorAll("#leaves image")].map(size),
  width: [document.documentElement.scrollWidth, innerWidth],
  loaded: performance.getEntriesByType("resource").map((one) => one.name)
    .filter((name) => !name.startsWith("data:")),
  themes: [look()],
};
const button = document.getElementById("theme");
seen.hidden = button.hidden;
button.click(); seen.themes.push(look());
button.click(); seen.themes.push(look());
document.getElementById("measured").textContent = JSON.stringify(seen);
</script>
</body>
"""


@pytest.fixture(autouse=True)
def needs_browser() -> None:
    if chromium() is None:
        reason = "there is no chromium on the path"
        if REQUIRED:
            pytest.fail(f"{reason}, and GRADSTABLE_BROWSER=required asks for it")
        pytest.skip(reason)


def measure(text: str, folder: Path, *, window: tuple[int, int], dark: bool) -> dict[str, Any]:
    page = folder / "page.html"
    page.write_text(text.replace("</body>", _MEASURE), encoding="utf-8")
    size = f"--window-size={window[0]},{window[1]}"
    dom, log = browse(page, "--dump-dom", size, dark=dark, seconds=300)
    assert "CONSOLE" not in log, log
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(unescape(found.group(1)))
    # Nothing is fetched, nothing sticks out to the right.
    assert seen["loaded"] == []
    assert seen["width"][0] <= seen["width"][1]
    return seen


def check_charts(seen: dict[str, Any], expected: set[str], *, window: tuple[int, int]) -> None:
    charts = {one["id"]: one for one in seen["charts"] if one["sizes"]}
    assert set(charts) == expected
    for chart in charts.values():
        # Drawn for wide and for narrow windows, and one of the two is shown.
        (shown,) = [size for size in chart["sizes"] if size[0] > 0]
        assert 0.35 * window[0] < shown[0] <= window[0]
        assert shown[1] > 100
        assert all(chart["labels"])


def check_themes(seen: dict[str, Any], *, dark: bool) -> None:
    names = ["dark", "light", "dark"] if dark else ["light", "dark", "light"]
    assert not seen["hidden"]
    assert [one["paper"] for one in seen["themes"]] == [PAPER[name] for name in names]
    first, second, third = seen["themes"]
    assert first == third
    assert first["ink"] != second["ink"]
    assert ("Light" if dark else "Dark") in first["button"]


@pytest.mark.parametrize(("window", "dark"), [(WIDE, False), (NARROW, True)])
def test_a_report(window: tuple[int, int], dark: bool, tmp_path: Path) -> None:
    text = render([write_run(tmp_path / "run.jsonl", stormy(600))])
    seen = measure(text, tmp_path, window=window, dark=dark)
    check_charts(seen, {"loss", "norm", "warnings", "leaves", "histogram"}, window=window)
    check_themes(seen, dark=dark)
    assert seen["curves"] >= 4
    assert max(width for width, _ in seen["maps"]) > 0.5 * window[0]


def test_a_comparison(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{seed}.jsonl", steps(450, seed=seed)) for seed in range(3)]
    seen = measure(render(runs), tmp_path, window=WIDE, dark=False)
    check_charts(seen, {"loss", "grad_norm"}, window=WIDE)
    check_themes(seen, dark=False)


def test_an_empty_run(tmp_path: Path) -> None:
    seen = measure(
        render([write_run(tmp_path / "run.jsonl", [])]), tmp_path, window=WIDE, dark=False
    )
    assert not any(one["sizes"] for one in seen["charts"])
