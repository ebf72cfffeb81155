"""A steady share of rejected or clipped steps is reported during the run, but not too often."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from gradstable._src.telemetry.notices import Notices
from gradstable.rules import Reason

LEAVES = ("trunk", "head")
LET_IN = {
    "grad_norm": 100.0, "scale": 0.02, "reason": int(Reason.RECURRING_CLIPPED), "worst_leaf": 1
}  # fmt: skip
REJECTED = {**LET_IN, "scale": 0.0, "reason": int(Reason.SPIKE_REJECTED)}


def told(
    number: int, faults: Iterable[int], fate: Mapping[str, Any] = LET_IN, **fields: Any
) -> list[str]:
    """Return what is reported about a run that is read every 64 steps."""
    notices, at = Notices(), set(faults)
    calm = {"grad_norm": 2.0, "scale": 1.0, "reason": 0, "worst_leaf": 0}
    rows = [
        {"step": step, **calm, **(fate if step in at else {}), **fields}
        for step in range(1, number + 1)
    ]
    readings: list[Sequence[Mapping[str, Any]]] = [
        rows[begin : begin + 64] for begin in range(0, number, 64)
    ]
    found = [event for one in readings for event in notices.after(one, LEAVES)]
    assert all(event.kind == "recurring" and event.step % 64 == 0 for event in found[:-1])
    return [event.note for event in found]


def test_a_share_is_told_early_and_then_once_in_a_thousand_steps() -> None:
    first, second, third = told(2500, range(10, 2501, 10))
    assert first == (
        "9.4 % of the last 64 steps had a gradient norm about 50 times the usual, most often in "
        "head, and were clipped to the usual size: a task or a kind of batch that is learned at "
        "clipped size, or a broken reader"
    )
    assert second.startswith("10 % of the last 1,000 steps had")
    assert third.startswith("10 % of the last 1,000 steps had")


def test_a_share_that_is_rejected_is_told_too() -> None:
    (text,) = told(640, range(10, 641, 20), REJECTED)
    assert "and were rejected: a task or a kind of batch that is never learned" in text


@pytest.mark.parametrize(
    "faults", [(), (300,), (100, 300, 500), range(300, 310), range(300, 400), range(200, 3000, 200)]
)
def test_a_few_steps_or_a_burst_are_no_share(faults: Iterable[int]) -> None:
    assert told(3000, faults) == []


def test_a_share_that_is_over_is_not_told_again() -> None:
    assert len(told(5000, range(10, 501, 10))) == 1


def test_members_are_told_apart() -> None:
    (text,) = told(640, range(10, 641, 20), member=(3,))
    assert text.startswith("member 3: 4.7 % of the last")


@pytest.mark.parametrize("row", [{"step": 1}, {"step": 1, "scale": 0.0, "grad_norm": float("nan")}])
def test_rows_without_numbers_are_no_trouble(row: Mapping[str, Any]) -> None:
    assert Notices().after([row], ()) == []
    assert Notices().after([], ()) == []
