"""The map of taps: layer by layer, in their natural order."""

from pathlib import Path
from typing import Any

import numpy as np

from gradstable._src.report.chart import Drawn, Panel
from gradstable._src.report.page import render
from gradstable._src.report.taps import MOST_TAPS, tap_curves, tap_gradients, tap_values
from gradstable._src.telemetry.tap_ring import SIDE, TAP_WIDTH
from gradstable.telemetry import read_run
from tests.doctor.expected import RUNS
from tests.report.drawn import columns_of, data_of
from tests.report.running import steps, write_run


def row(largest: object, *, not_finite: float = 0.0) -> list[Any]:
    numbers: list[Any] = [1.0] * TAP_WIDTH
    numbers[SIDE.index("max_abs")] = largest
    numbers[SIDE.index("not_finite")] = not_finite
    numbers[-1] = -1
    return numbers


def names_of(panel: Panel | None) -> list[str]:
    assert panel is not None
    (chart,) = panel.charts
    assert isinstance(chart, Drawn)
    return list(chart.fields["names"])


def test_a_run_without_taps_has_no_map(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", steps(20))
    assert tap_values(run) is None
    assert tap_curves(run) == (None, {})
    assert 'id="taps"' not in render([run])


def test_both_maps_are_on_the_page() -> None:
    page = render([read_run(RUNS / "growing_residual.jsonl")])
    assert 'id="taps"' in page
    assert 'id="tap-gradients"' in page
    assert list(data_of(page)["charts"]["tap-curves-0"]["charts"]) == [
        f"residual/{layer}" for layer in range(4)
    ]
    largest = columns_of(page, "tap-3")["largest value"]
    assert largest[-1] > 100 * largest[0] > 0


def test_blocks_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    taps = {f"block_{layer}/mlp": row(1.0 + layer) for layer in range(12)}
    run = write_run(tmp_path / "run.jsonl", steps(20, faults={3: {"taps": taps}}))
    panel = tap_values(run)
    assert panel is not None
    assert names_of(panel) == [f"block_{layer}/mlp" for layer in range(12)]
    assert "The largest is at block_11/mlp" in panel.label


def test_of_many_taps_those_that_grew_or_broke_are_shown(tmp_path: Path) -> None:
    first: dict[str, Any] = {f"tap_{number}": row(1.0) for number in range(90)}
    last = {**first, "tap_70": row(50.0), "tap_89": row("nan", not_finite=1.0)}
    run = write_run(
        tmp_path / "run.jsonl", steps(20, faults={3: {"taps": first}, 9: {"taps": last}})
    )
    panel = tap_values(run)
    assert panel is not None
    assert f"Shown are {MOST_TAPS} of 90 taps" in panel.reading
    assert "1 had entries that were not finite" in panel.label
    assert [key.text for key in panel.legend] == ["NaN or infinite entries"]
    assert {"tap_70", "tap_89"} <= set(names_of(panel))


def test_only_unknown_numbers_are_drawn_without_a_crash(tmp_path: Path) -> None:
    taps = {"a": ["nan"] * TAP_WIDTH, "b": [0.0] * TAP_WIDTH}
    run = write_run(tmp_path / "run.jsonl", steps(20, faults={3: {"taps": taps}}))
    for panel in (tap_values(run), tap_gradients(run)):
        assert names_of(panel) == ["a", "b"]
    assert np.isnan(run.taps["a"].forward["rms"]).all()
