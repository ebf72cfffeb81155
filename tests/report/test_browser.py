"""The page in a real browser: what it draws, and what it does when it is used; no complaint."""

import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import browse, chromium
from gradstable.report import render
from gradstable.telemetry import read_run
from tests.doctor.expected import RUNS
from tests.report.running import steps, stormy, write_run

REQUIRED = os.environ.get("GRADSTABLE_BROWSER") == "required"
WIDE, NARROW = (1100, 900), (400, 900)
PAPER = {"light": "rgb(244, 245, 247)", "dark": "rgb(14, 17, 22)"}

# Runs behind the script of the page, and leaves what it saw where --dump-dom shows it.
_MEASURE = """
<pre id="measured"></pre>
<script>
const seen = {};
const all = (query) => [...document.querySelectorAll(query)];
const size = (one) => { const box = one.getBoundingClientRect(); return [box.width, box.height]; };
// How much of a canvas is drawn, and in how many colors.
const ink = (canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colors = new Set();
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] === 255) colors.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
  }
  return colors.size;
};
const over = (name) => document.querySelector(`[data-chart="${name}"] .u-over`);
const mouse = (name, kind, x, y = 60, fields = {}) => {
  const box = over(name).getBoundingClientRect();
  over(name).dispatchEvent(new MouseEvent(kind, {
    clientX: box.left + x, clientY: box.top + y, movementX: 1, bubbles: true, ...fields,
  }));
};
const hover = (name, x, y) => { mouse(name, "mouseenter", x, y); mouse(name, "mousemove", x, y); };
const drag = (name, from, to, fields) => {
  hover(name, from);
  mouse(name, "mousedown", from, 60, fields);
  mouse(name, "mousemove", to, 60, fields);
  mouse(name, "mouseup", to, 60, fields);
};
const tips = () => Object.fromEntries(all("[data-chart]").map((room) => {
  const tip = room.querySelector(".tip");
  return [room.dataset.chart, tip && !tip.hidden ? tip.innerText.split("\\n") : null];
}));
const shown = () => document.querySelector("#view output").textContent;
const press = (deed) => document.querySelector(`#view [data-do=${deed}]`).click();
const soon = () => new Promise((done) => setTimeout(done, 50));
const finish = () => {
  seen.width = [document.documentElement.scrollWidth, innerWidth];
  seen.loaded = performance.getEntriesByType("resource").map((one) => one.name)
    .filter((name) => !name.startsWith("data:"));
  const text = JSON.stringify(seen);
  if (parent === window) document.getElementById("measured").textContent = text;
  else parent.postMessage(text, "*");
};
(async () => { await soon(); SCRIPT; finish(); })();
</script>
</body>
"""
_CHARTS = """
const look = () => ({
  paper: getComputedStyle(document.body).backgroundColor,
  button: document.getElementById("theme").textContent,
});
seen.charts = Object.fromEntries(all("[data-chart]").map((room) =>
  [room.dataset.chart, { size: size(room), ink: ink(room.querySelector("canvas")) }]));
seen.themes = [look()];
const button = document.getElementById("theme");
seen.hidden = button.hidden;
button.click(); seen.themes.push(look());
button.click(); seen.themes.push(look());
"""


@pytest.fixture(autouse=True)
def needs_browser() -> None:
    if chromium() is None:
        reason = "there is no chromium on the path"
        if REQUIRED:
            pytest.fail(f"{reason}, and GRADSTABLE_BROWSER=required asks for it")
        pytest.skip(reason)


def use(
    text: str,
    folder: Path,
    script: str = "",
    *,
    window: tuple[int, int] = WIDE,
    dark: bool = False,
    part: str = "",
) -> dict[str, Any]:
    """Open a page, run a script in it, and return what it has seen."""
    page = folder / "page.html"
    script = _MEASURE.replace("SCRIPT", script)
    page.write_text(text.replace("</body>", script), encoding="utf-8")
    dom, log = browse(page, "--dump-dom", window=window, dark=dark, seconds=100, part=part)
    assert "CONSOLE" not in log, log
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(unescape(found.group(1)))
    # Nothing is fetched, nothing sticks out to the right.
    assert seen["loaded"] == []
    assert seen["width"][0] <= seen["width"][1] == window[0]
    return seen


def check_charts(seen: dict[str, Any], expected: set[str], *, window: tuple[int, int]) -> None:
    assert set(seen["charts"]) == expected
    for chart in seen["charts"].values():
        assert 0.3 * window[0] < chart["size"][0] <= window[0]
        assert chart["size"][1] > 90
        assert chart["ink"] > 3


def check_themes(seen: dict[str, Any], *, dark: bool) -> None:
    names = ["dark", "light", "dark"] if dark else ["light", "dark", "light"]
    assert not seen["hidden"]
    assert [one["paper"] for one in seen["themes"]] == [PAPER[name] for name in names]
    assert ("Light" if dark else "Dark") in seen["themes"][0]["button"]


@pytest.fixture(scope="module")
def stormy_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stormy")
    return render([write_run(folder / "run.jsonl", stormy(600))])


@pytest.mark.parametrize(("window", "dark"), [(WIDE, False), (NARROW, True)])
def test_a_report(window: tuple[int, int], dark: bool, stormy_page: str, tmp_path: Path) -> None:
    seen = use(stormy_page, tmp_path, _CHARTS, window=window, dark=dark)
    names = {"loss-0", "loss-1", "norm-0", "warnings-0", "warnings-1"}
    check_charts(seen, names | {"scalars-0", "leaves-0", "histogram-0"}, window=window)
    check_themes(seen, dark=dark)


def test_a_comparison(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{seed}.jsonl", steps(450, seed=seed)) for seed in range(2)]
    runs.append(write_run(tmp_path / "2.jsonl", stormy(600)))
    script = f"{_CHARTS} hover('loss-0', 400); seen.tips = tips();"
    seen = use(render(runs), tmp_path, script)
    names = {"loss-0", "grad_norm-0", "lr_factor-0", "update_ratio-0", "scalars-0"}
    check_charts(seen, names, window=WIDE)
    check_themes(seen, dark=False)
    # Each run has its value at the cursor, the first on top of the others and so last.
    assert [row.split()[:2] for row in seen["tips"]["loss-0"][1:]] == [
        ["test", f"({place})"] for place in (3, 2, 1)
    ]


def test_an_empty_run(tmp_path: Path) -> None:
    seen = use(render([write_run(tmp_path / "run.jsonl", [])]), tmp_path, _CHARTS)
    assert not seen["charts"]


def test_the_cursor_shows_the_values_of_all_charts_at_its_step(
    stormy_page: str, tmp_path: Path
) -> None:
    # Step 60 was rejected: a norm of 1e30. It is at a tenth of the axis, more or less.
    script = """
    for (let x = 60; x < 130 && tips()["norm-0"]?.[0] !== "step 60"; x++) hover("norm-0", x);
    seen.tips = tips();
    mouse("norm-0", "mouseleave", -5);
    hover("histogram-0", 30); seen.bar = tips()["histogram-0"];
    hover("leaves-0", 300, 8); seen.cell = tips()["leaves-0"];
    """
    seen = use(stormy_page, tmp_path, script)
    rejected = "rejected: the gradient norm was far above its usual range"
    assert seen["tips"]["norm-0"] == ["step 60", "threshold 4", "norm 10³⁰", rejected]
    assert seen["tips"]["loss-0"] == ["step 60", "loss 5,000", rejected]
    assert seen["tips"]["loss-1"] == ["step 60", "factor 1", rejected][:2]
    assert seen["tips"]["warnings-0"][0] == "step 60"
    assert seen["tips"]["leaves-0"] is None
    assert seen["bar"][0].startswith("gradient norm 0.")
    assert re.fullmatch(r"\d+ accepted unchanged", seen["bar"][1])
    assert re.fullmatch(r"steps? \d+( to \d+)?", seen["cell"][0])
    assert seen["cell"][1] == "block_0/kernel"
    assert seen["cell"][2].startswith("gradient norm about ")


def test_zoom_pan_and_buttons_move_all_charts(stormy_page: str, tmp_path: Path) -> None:
    script = """
    const at = () => {
      hover("loss-0", 0);
      const [step] = tips()["warnings-1"];
      hover("loss-0", -9);
      return step;
    };
    seen.whole = [shown(), at()];
    drag("norm-0", 200, 400); await soon(); seen.zoomed = [shown(), at(), location.hash];
    press("in"); await soon(); seen.nearer = shown();
    press("right"); await soon(); seen.moved = shown();
    drag("loss-0", 300, 100, { shiftKey: true }); await soon(); seen.panned = shown();
    mouse("loss-0", "dblclick", 50); await soon(); seen.back = [shown(), location.hash];
    over("loss-0").dispatchEvent(new WheelEvent(
      "wheel", { deltaY: -1, ctrlKey: true, clientX: 500, cancelable: true }));
    await soon(); seen.wheel = shown();
    press("all"); await soon(); seen.all = shown();
    """
    seen = use(stormy_page, tmp_path, script)

    def ends(text: str) -> tuple[int, int]:
        first, last = re.fullmatch(r"steps (\d+) to (\d+)", text).groups()  # pyright: ignore
        return int(first), int(last)

    assert seen["whole"] == ["steps 1 to 600", "step 1"]
    zoomed, nearer, moved = (
        ends(one) for one in (seen["zoomed"][0], seen["nearer"], seen["moved"])
    )
    assert 100 < zoomed[0] < 200 < zoomed[1] < 300
    # The other charts show the same steps, and the address leads back to them.
    assert abs(int(seen["zoomed"][1].split()[1]) - zoomed[0]) <= 1
    assert seen["zoomed"][2] == f"#steps={zoomed[0]}-{zoomed[1]}"
    assert zoomed[0] < nearer[0] < nearer[1] < zoomed[1]
    assert moved[0] - nearer[0] == pytest.approx((nearer[1] - nearer[0]) / 2, abs=1)
    assert ends(seen["panned"])[0] > moved[0]
    assert seen["back"] == ["steps 1 to 600", ""]
    first, last = ends(seen["wheel"])
    assert 1 < first < last < 600
    assert seen["all"] == "steps 1 to 600"


def test_an_address_leads_to_its_steps_and_axes(stormy_page: str, tmp_path: Path) -> None:
    script = """
    const name = () => document.querySelector('[data-chart="loss-0"] .scale').textContent;
    seen.first = [shown(), name()];
    document.querySelector('[data-chart="loss-0"] .scale').click(); await soon();
    seen.then = [shown(), name(), location.hash];
    """
    seen = use(stormy_page, tmp_path, script, part="#steps=100-200&loss-0=linear")
    assert seen["first"] == ["steps 100 to 200", "log"]
    assert seen["then"] == ["steps 100 to 200", "linear", "#steps=100-200&loss-0=log"]


def test_an_event_leads_to_its_steps(stormy_page: str, tmp_path: Path) -> None:
    script = """
    const row = all("#events tr").find((one) => one.textContent.includes("NaN or infinite"));
    row.querySelector("a").click(); await soon();
    seen.shown = shown(); seen.top = document.getElementById("loss").getBoundingClientRect().top;
    """
    seen = use(stormy_page, tmp_path, script)
    first, last = map(int, re.findall(r"\d+", seen["shown"]))
    assert 370 <= first < 400
    assert 404 < last <= 434
    assert 0 <= seen["top"] < 200


def test_one_wild_value_does_not_flatten_the_rest(tmp_path: Path) -> None:
    """The axis fits the usual values; an arrow at the edge stands for what is beyond."""
    faults = {300: {"loss": 1e8, "grad_norm": 1e30}}
    page = render([write_run(tmp_path / "run.jsonl", steps(600, faults=faults))])
    script = """
    // The share of the height of a chart that has the color of the curve.
    const rows = (name) => {
      const { width, height } = document.querySelector(`[data-chart="${name}"] canvas`);
      const { data } = document.querySelector(`[data-chart="${name}"] canvas`)
        .getContext("2d").getImageData(0, 0, width, height);
      let found = 0;
      for (let y = 0; y < height; y++) {
        const row = Array.from({ length: width }, (_, x) => 4 * (y * width + x));
        found += row.some((at) => data[at] === 0 && data[at + 1] === 114 && data[at + 2] === 178);
      }
      return found / height;
    };
    seen.log = rows("loss-0");
    document.querySelector('[data-chart="loss-0"] .scale').click(); await soon();
    seen.linear = rows("loss-0");
    """
    seen = use(page, tmp_path, script)
    # The curve, which falls by a factor of 20, takes a good part of the height on both axes.
    assert seen["log"] > 0.3
    assert seen["linear"] > 0.3


def test_one_tap_of_many_is_chosen(tmp_path: Path) -> None:
    script = """
    const select = () => document.querySelector('[data-chart="tap-curves-0"] select');
    select().value = "residual/3"; select().dispatchEvent(new Event("change")); await soon();
    hover("tap-curves-0", 800); seen.tip = tips()["tap-curves-0"];
    seen.chosen = [select().value, location.hash];
    """
    seen = use(render([read_run(RUNS / "growing_residual.jsonl")]), tmp_path, script)
    assert seen["chosen"] == ["residual/3", "#tap-curves-0-of=residual%2F3"]
    assert [row.rsplit(" ", 1)[0] for row in seen["tip"][1:]] == [
        "largest value", "root mean square", "root mean square of its gradient",
    ]  # fmt: skip


def test_the_page_of_a_run_that_goes_on_loads_itself_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", steps(60))
    # The count of loads is in the name of the window, which a reload keeps. A page that nobody
    # looks at waits, so that this one comes to an end.
    script = """
    window.name = `${Number(window.name) + 1}`; seen.loads = window.name;
    if (window.name === "2") Object.defineProperty(document, "hidden", { value: true });
    """
    assert use(render([run], reload=1), tmp_path, script)["loads"] == "2"
    assert use(render([run]), tmp_path, script)["loads"] == "1"


def test_a_long_run_is_drawn_and_zoomed_into(tmp_path: Path) -> None:
    page = render([write_run(tmp_path / "run.jsonl", stormy(100_000))])
    assert len(page.encode()) < 1_000_000
    script = f"""{_CHARTS}
    drag("loss-0", 300, 340); await soon(); drag("loss-0", 300, 340); await soon();
    seen.shown = shown(); hover("loss-0", 300); seen.tip = tips()["loss-0"];
    """
    seen = use(page, tmp_path, script)
    first, last = (int(one.replace(",", "")) for one in re.findall(r"[\d,]+", seen["shown"]))
    assert last - first < 1000
    assert seen["tip"][0].startswith("step ")
    assert seen["tip"][1].startswith("loss ")
