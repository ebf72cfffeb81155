"""A report of a real training run with faults in its data, recorded by the library itself."""

from pathlib import Path

import pytest

from benchmarks.report_screenshot import BRIGHT, BROKEN, train
from gradstable._src.report.summary import verdict
from gradstable.report import render
from tests.report.test_page import check


@pytest.mark.parametrize("guarded", [True, False])
def test_a_real_run(guarded: bool, tmp_path: Path) -> None:
    run = train(tmp_path / "run.jsonl", steps=230, guarded=guarded)
    mood, text = verdict(run)
    page = check(render([run]))
    assert len(page.labels) == 6
    if guarded:
        assert run.step[run.rejected].tolist() == [BRIGHT, BROKEN]
        assert mood == "good"
        assert "first in ['dense_0']['kernel']" in page.words
    else:
        assert mood == "bad"
        assert f"not finite from step {BROKEN} to the last step" in text
