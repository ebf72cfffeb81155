"""What is told of the rows of a log: each episode once, in order, however it is read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from gradstable._src.telemetry.events import Events
from gradstable._src.telemetry.restores import Restores, events_between
from gradstable.rules import Reason
from gradstable.telemetry import Alarm, Event

LEAVES = ("trunk", "head")
CALM = {"loss": 1.0, "grad_norm": 2.0, "scale": 1.0, "reason": 0, "worst_leaf": 0, "alarms": 0}
BAD = {"grad_norm": np.nan, "scale": 0.0, "reason": int(Reason.NONFINITE), "worst_leaf": 1}
FAR = {**BAD, "grad_norm": 900.0, "reason": int(Reason.SPIKE_REJECTED)}
Faults = Mapping[int, Mapping[str, Any]]


def at(steps: Iterable[int], fate: Mapping[str, Any] = BAD) -> Faults:
    return dict.fromkeys(steps, fate)


def rows(number: int, faults: Faults, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"step": step, **CALM, **fields, **faults.get(step, {})} for step in range(1, number + 1)
    ]


def told(given: Sequence[Mapping[str, Any]], every: int = 64) -> list[Event]:
    """Return the events of a run that is read every few steps."""
    events = Events()
    parts = [given[begin : begin + every] for begin in range(0, len(given), every)]
    return [event for part in parts for event in events.after(part, LEAVES)]


def spans(events: Iterable[Event]) -> list[tuple[str, int, int]]:
    return [(one.kind, one.step, one.last) for one in events]


def test_an_episode_is_told_once_with_its_steps_its_leaf_and_its_row() -> None:
    (event,) = told(rows(64, at((20, 21, 24))))
    assert spans([event]) == [("rejected", 20, 24)]
    assert event.sentence == (
        "steps 20 to 24: rejected: the gradient had NaN or infinite entries, in head"
    )
    assert event.row["step"] == 20
    assert not event.is_serious


@pytest.mark.parametrize("every", [1, 3, 64])
def test_however_often_it_is_read_it_is_told_once(every: int) -> None:
    """Pitfall: an episode that spans two readings was told at both."""
    found = told(rows(64, at([*range(30, 45), 60])), every)
    assert [one.step for one in found] == [30, 60]


def test_steps_four_apart_are_two_episodes_and_three_apart_are_one() -> None:
    assert spans(told(rows(40, at((10, 13, 17))))) == [("rejected", 10, 13), ("rejected", 17, 17)]


def test_an_episode_that_goes_on_is_told_again_after_a_thousand_steps() -> None:
    """Pitfall: a share of one in three is one long episode, and was told once in a whole run."""
    found = told(rows(2500, at(range(3, 2501, 3))))
    assert [one.step for one in found] == [3, 1005, 2007]


def test_causes_and_members_have_their_own() -> None:
    two = rows(40, {**at((10,)), **at((11,), FAR)})
    assert [one.text.split(": ")[1].split(",")[0] for one in told(two)] == [
        "the gradient had NaN or infinite entries",
        "the gradient norm was far above its usual range",
    ]
    members = [*rows(40, at((30,)), member=(0,)), *rows(40, at((29,)), member=(1, 3))]
    found = told(members, every=len(members))
    assert [one.sentence.split(": ")[:2] for one in found] == [
        ["step 29", "member 1-3"],
        ["step 30", "member 0"],
    ]


def test_early_warnings_are_told_by_their_kind() -> None:
    both = int(Alarm.RMS | Alarm.UPDATE_RATIO)
    found = told(rows(90, {**at((20,), {"alarms": 1}), **at(range(60, 70), {"alarms": both})}))
    assert spans(found) == [
        ("early_warning", 20, 20),
        ("early_warning", 60, 64),
        ("early_warning", 60, 64),
    ]
    assert [one.text.split(": ")[1].split()[0] for one in found] == ["the", "the", "updates"]


def test_single_steps_of_a_share_that_is_told_are_no_news() -> None:
    """Pitfall: one bad batch in ten would call a person a hundred times in a thousand steps."""
    found = told(rows(2000, at(range(10, 2001, 10))))
    assert [(one.kind, one.step) for one in found] == [("recurring", 64), ("recurring", 1088)]
    assert found[0].text.startswith("9.4 % of the last 64 steps were rejected, most often in head")
    other = told(rows(640, {**at(range(10, 641, 10), FAR), **at((605,))}))
    assert other[-1].text.startswith("rejected: the gradient had NaN"), "but another cause is"


@pytest.mark.parametrize("every", [7, 64])
def test_a_run_that_rejects_everything_has_diverged_once(every: int) -> None:
    (first, event) = told(rows(500, at(range(101, 501))), every)
    assert spans([first])[0][:2] == ("rejected", 101)
    assert spans([event]) == [("diverged", 300, 300)]
    assert event.text == "the last 200 steps were all rejected"
    assert event.is_serious
    assert not [one for one in told(rows(500, at(range(101, 300)))) if one.kind == "diverged"]


def test_without_a_guard_a_nan_that_stays_has_diverged() -> None:
    """Pitfall: a batch that is NaN says nothing if what is around the optimizer throws it away."""
    bare = [
        {"step": step, **dict.fromkeys(("loss", "grad_norm", "update_ratio"), value)}
        for step in range(1, 100)
        for value in [np.nan if step > 30 else 1e-3]
    ]
    (event,) = told(bare)
    assert spans([event]) == [("diverged", 50, 50)]
    assert event.text == "gradients and updates have been NaN or infinite for 20 steps"
    assert told([row for row in bare if row["step"] < 50]) == []
    kept_out = {"grad_norm": np.nan, "loss": np.nan, "update_ratio": 1e-3}
    zero_params = {"grad_norm": 1.0, "loss": 1.0, "update_ratio": np.inf}
    for healthy in (kept_out, zero_params):
        assert told([{"step": step, **healthy} for step in range(1, 100)]) == []


def test_rows_without_numbers_are_no_trouble() -> None:
    assert told([{"step": 1}]) == []
    assert [one.kind for one in told([{"step": 1, "scale": 0.0}])] == ["rejected"]
    assert Events().after([], ()) == []


def test_rollbacks_are_told_with_where_they_led() -> None:
    before = [Restores("", 1, 50, 41, 0, -1, 0)]
    after = [Restores("", 3, 90, 81, 1, 95, 1)]
    found = events_between(before, after, apart=False)
    assert spans(found) == [("rolled_back", 90, 90), ("undone", 95, 95), ("paused", 90, 90)]
    assert found[0].text == "rolled back to the state before step 81 (the last of 2)"
    assert found[0].row == {"step": 90, "to": 81, "times": 2}
    assert events_between(after, after, apart=False) == []


def test_replicas_rolled_back_together_and_members_apart() -> None:
    before = [Restores(name, 0, -1, -1, 0, -1, 0) for name in "01"]
    after = [Restores(name, 1, 60, 41, 0, -1, 0) for name in "01"]
    assert [one.member for one in events_between(before, after, apart=False)] == [""]
    assert [one.member for one in events_between(before, after, apart=True)] == ["0", "1"]


def test_part_of_the_gradient_that_stood_out_is_told() -> None:
    (event,) = told(rows(40, at((10,), {**FAR, "device": 5, "micro_batch": -1})))
    assert event.text.endswith(", in head (device 5 stood out)")
