"""Long runs: how often something is called is counted, since times wobble."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstable._src.report import curves
from gradstable._src.report.events import events, most_telling, reasons
from gradstable._src.report.histogram import norms
from gradstable._src.report.leaves import leaf_norms
from gradstable._src.report.summary import tiles, verdict
from gradstable.doctor import RULES, diagnose
from gradstable.report import render
from gradstable.rules import Reason
from gradstable.telemetry import Run, blame, read_run
from tests.report.running import CLIPPED, rejected, steps, write_run

SHORT = 3000


def calls_of(function: Callable[[], Any]) -> int:
    """Return how many functions are called, those written in C too."""
    number = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return number


def hard(path: Path, number: int) -> Run:
    """Return a run in which something happens at every third step, to the end."""
    fates = [
        {"loss": "nan"},
        {"grad_norm": "inf"},
        rejected(Reason.SPIKE_REJECTED, grad_norm=50.0),
        {"scale": CLIPPED, "reason": int(Reason.SPIKE_CLIPPED)},
        {"rms": 40.0, "alarms": 3, "update_ratio": 0.2},
        {"loss": 30.0},
        rejected(loss="nan", grad_norm="nan"),
    ]
    rng = np.random.default_rng(0)
    faults = {step: fates[rng.integers(len(fates))] for step in range(60, number, 3)}
    events: list[Any] = steps(number, faults=faults)
    events += [{"event": "rollback", "step": step, "to": 1} for step in range(5, number, 20)]
    events += [{"event": "lost", "first": step, "last": step} for step in range(9, number, 30)]
    return write_run(path, events)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("runs")
    short, long = (hard(folder / f"{number}.jsonl", number) for number in (SHORT, 2 * SHORT))
    return short, long


@pytest.mark.parametrize("rule", [*RULES, "diagnose", "blame"])
def test_a_rule_asks_no_more_of_a_longer_run(rule: str, runs: tuple[Run, Run]) -> None:
    """What is called is linear in the run, so how often must not depend on its length.

    Pitfall: a loop over what is bad, with a pass over the whole run in it, was quadratic.
    """
    judge: Callable[[Run], Any] = {"diagnose": diagnose, "blame": blame, **RULES}[rule]
    short, long = (calls_of(lambda run=run: judge(run)) for run in runs)
    # A bit more of the ranks, and one run may be told something that the other is not.
    assert long < 1.3 * short + 60


def test_reading_a_run_twice_as_long_is_twice_the_work(runs: tuple[Run, Run]) -> None:
    short, long = (calls_of(lambda run=run: read_run(run.path)) for run in runs)
    assert long < 2.1 * short
    assert long < 40 * 2 * SHORT, "about one a field"


@pytest.mark.parametrize("part", [verdict, tiles, reasons, lambda run: most_telling(events(run))])
def test_a_longer_run_is_put_into_words_as_soon(
    part: Callable[[Run], Any], runs: tuple[Run, Run]
) -> None:
    short, long = (calls_of(lambda run=run: part(run)) for run in runs)
    assert long < 1.3 * short + 60


@pytest.mark.parametrize(
    "part",
    [curves.tables, curves.loss, curves.grad_norm, curves.warnings, leaf_norms, norms],
)
def test_a_chart_of_a_longer_run_is_made_as_soon(
    part: Callable[[Run], Any], runs: tuple[Run, Run]
) -> None:
    short, long = (calls_of(lambda run=run: part(run)) for run in runs)
    assert long < 1.3 * short + 60


def test_a_page_of_a_longer_run_is_no_more_work(runs: tuple[Run, Run]) -> None:
    short, long = (calls_of(lambda run=run: render([run])) for run in runs)
    # More of the bins are full, and more of the marks stand apart.
    assert long < 1.3 * short
