"""The verdict: one sentence that is true of the run."""

from pathlib import Path

import numpy as np
import pytest

from gradstable._src.report.summary import tiles, verdict
from gradstable.rules import Reason
from tests.report.running import Events, rejected, steps, stormy, write_run

NAN = {"loss": "nan", "grad_norm": "nan"}
END = [{"event": "end", "step": 500}]
NO_GUARD = {"scale": None, "threshold": None, "reason": None}


def told(path: Path, events: Events) -> tuple[str, str]:
    return verdict(write_run(path / "run.jsonl", events))


@pytest.mark.parametrize(
    ("events", "mood", "text"),
    [
        ([*steps(500), *END], "good", "Calm: no step was rejected; the loss fell from 2."),
        ([{**one, **NO_GUARD} for one in steps(50)], "good", "Finite to the end, without a guard"),
        (END, "warn", "No step was recorded."),
        (
            [*steps(500, faults={9: rejected(**NAN)}), *END],
            "good",
            "Held: 1 of 500 steps was rejected, because the gradient had NaN or infinite entries",
        ),
        (
            steps(500, faults=dict.fromkeys(range(300, 501), rejected(**NAN))),
            "bad",
            "Stuck: the last 201 steps were all rejected, most of them because the gradient had",
        ),
        (steps(3, faults=dict.fromkeys((1, 2, 3), rejected())), "bad", "Stuck: every step was"),
        (
            steps(500, faults=dict.fromkeys(range(300, 501), NAN)),
            "bad",
            "Broken: loss or gradient was not finite from step 300 to the last step",
        ),
        (
            steps(500, faults={500: NAN}),
            "bad",
            "Broken: loss or gradient was not finite at the last",
        ),
        (steps(500, faults={7: NAN}), "warn", "Lucky: 1 step with a loss or gradient that was"),
    ],
)
def test_verdict(
    events: Events,
    mood: str,
    text: str,
    tmp_path: Path,
) -> None:
    found = told(tmp_path, events)
    assert found[0] == mood
    assert found[1].startswith(text)


def test_rejections_at_the_end_neither_break_nor_mend_a_run(tmp_path: Path) -> None:
    faults = dict.fromkeys(range(400, 490), NAN) | dict.fromkeys(range(490, 501), rejected(**NAN))
    assert "not finite from step 400" in told(tmp_path, steps(500, faults=faults))[1]


def test_verdict_tells_what_is_missing(tmp_path: Path) -> None:
    assert "The log was not closed" in told(tmp_path, steps(5))[1]
    assert "The log was not closed" not in told(tmp_path, [*steps(5), *END])[1]
    lost = [*steps(5), {"event": "lost", "first": 6, "last": 9}]
    assert "4 steps were overwritten" in told(tmp_path, lost)[1]
    assert "Rolled back once, at step 251" in told(tmp_path, stormy(500))[1]


def test_mostly_because_is_said_where_there_are_other_reasons(tmp_path: Path) -> None:
    faults = dict.fromkeys((5, 6), rejected()) | {50: rejected(Reason.SPIKE_REJECTED)}
    assert "mostly because the gradient had NaN" in told(tmp_path, steps(99, faults=faults))[1]


def test_tiles(tmp_path: Path) -> None:
    found = {name: (value, note) for name, value, note in tiles(
        write_run(tmp_path / "run.jsonl", stormy(500))
    )}  # fmt: skip
    assert found["steps"] == ("475", "1 to 500")
    assert found["rejected"] == ("6", "1.26 %")
    assert found["clipped"] == ("1", "0.21 %")
    assert found["accepted"][0] == "469"
    assert found["worst leaf"] == ("['block_0']['bias']", "worst in 6 of 6 rejected steps")


def test_a_run_without_a_guard_is_not_called_clipped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", [{**one, **NO_GUARD} for one in steps(50)])
    assert dict((name, value) for name, value, _ in tiles(run))["clipped"] == "0"


def test_the_loss_at_the_end_is_that_of_accepted_steps(tmp_path: Path) -> None:
    events = steps(50, faults={step: rejected(loss=1e9) for step in range(45, 51)})
    found = {name: value for name, value, _ in tiles(write_run(tmp_path / "run.jsonl", events))}
    first, last = found["loss"].split(" → ")
    losses = [event["loss"] for event in events]
    assert float(first) == pytest.approx(np.median(losses[:4]), rel=5e-3)
    assert float(last) == pytest.approx(np.median(losses[40:44]), rel=5e-3)
