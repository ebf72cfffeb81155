"""Rollbacks of a recorded run: how many, where, and whether they helped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstable._src.telemetry.returns import Returns, is_governed, returns_of, slowed
from gradstable._src.telemetry.undone import undone_in, undone_note
from gradstable.rules import Reason
from tests.report.running import rejected, steps, write_run

HELD = {"threshold": "inf", "scale": 1.0, "reason": int(Reason.OK)}


def noted(step: int, text: str) -> dict[str, Any]:
    return {"event": "note", "step": step, "text": text}


def back(
    path: Path,
    faults: Mapping[int, Mapping[str, Any]],
    *lines: tuple[int, int, int],
    undone: Sequence[tuple[int, int]] = (),
) -> Returns:
    """Return the rollbacks of a calm run with faults, lines of (step, to, times), and notes."""
    names = ("step", "to", "times")
    events = [{"event": "rollback", **dict(zip(names, line, strict=True))} for line in lines]
    events += [noted(step, undone_note(times)) for step, times in undone]
    found = returns_of(write_run(path / "run.jsonl", [*steps(500, faults=faults), *events]))
    assert found is not None
    return found


def spoiled(*stretches: range, loss: float | str = 300.0) -> dict[int, Mapping[str, Any]]:
    return {step: {"loss": loss} for part in stretches for step in part}


def test_without_rollbacks_there_is_nothing(tmp_path: Path) -> None:
    assert returns_of(write_run(tmp_path / "run.jsonl", steps(50))) is None


def test_one_that_helped(tmp_path: Path) -> None:
    found = back(tmp_path, {**spoiled(range(200, 212)), 212: HELD, 213: HELD}, (212, 101, 1))
    assert found.sentence == (
        "Rolled back once, at step 212, to the state before step 101; the loss was lower afterward."
    )
    assert np.flatnonzero(found.held).tolist() == [211, 212]
    assert not found.in_vain


def test_one_that_did_not(tmp_path: Path) -> None:
    found = back(tmp_path, {**spoiled(range(200, 250)), 212: HELD}, (212, 101, 1))
    assert found.sentence.endswith("The loss was not lower after it: rolling back did not help.")


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_is_not_finite_is_the_worst(loss: str, tmp_path: Path) -> None:
    faults = {**spoiled(range(200, 212), loss=loss), 212: HELD}
    assert back(tmp_path, faults, (212, 101, 1)).better == 1
    faults |= spoiled(range(213, 240), loss=loss)
    assert back(tmp_path, faults, (212, 101, 1)).in_vain


def test_a_gradient_that_is_not_finite_is_the_worst_too(tmp_path: Path) -> None:
    """Pitfall: the loss was fine before and after, and only the gradient was not a number."""
    broken = dict.fromkeys(range(200, 212), rejected(grad_norm="nan"))
    assert back(tmp_path, {**broken, 212: HELD}, (212, 101, 1)).better == 1


def test_rollbacks_between_two_readings_are_found_in_the_steps(tmp_path: Path) -> None:
    """Pitfall: the file has one line for several, with the step of the last."""
    faults = {**spoiled(range(200, 260), range(300, 360)), 212: HELD, 312: HELD, 313: HELD}
    found = back(tmp_path, faults, (312, 101, 2))
    assert (found.times, found.first, found.last, found.judged, found.better) == (2, 212, 312, 2, 0)
    assert found.sentence.startswith("Rolled back 2 times between steps 212 and 312, the last time")


def test_without_a_guard_only_the_last_one_is_known(tmp_path: Path) -> None:
    faults = dict.fromkeys(range(1, 501), HELD)
    found = back(tmp_path, faults, (312, 101, 5))
    assert not found.held.any()
    assert found.sentence.startswith("Rolled back 5 times, the last at step 312, to the state")
    assert found.sentence.endswith("The loss was not lower after most returns: rolling back did "
                                   "not help.")  # fmt: skip


def test_many_that_helped_have_a_cause(tmp_path: Path) -> None:
    stretches = [range(first, first + 12) for first in (100, 200, 300)]
    faults = {**spoiled(*stretches), **dict.fromkeys((112, 212, 312), HELD)}
    found = back(tmp_path, faults, (112, 51, 1), (212, 151, 1), (312, 251, 1))
    assert (found.in_vain, found.often) == (False, True)
    assert found.sentence.endswith("again and again: the cause lasts.")


def test_a_paused_run(tmp_path: Path) -> None:
    faults = {**spoiled(range(200, 212)), **dict.fromkeys(range(212, 501), HELD)}
    assert back(tmp_path, faults, (212, 101, 2)).paused == 212
    # A few updates toward a copy are no pause.
    faults = {**spoiled(range(484, 496)), **dict.fromkeys(range(496, 501), HELD)}
    assert back(tmp_path, faults, (496, 101, 1)).paused == 0


@pytest.mark.parametrize("lines", [[(700, 101, 1)], [(2, 1, 1)], [(500, 490, 1), (3, 1, 0)]])
def test_a_line_anywhere_is_told(lines: Sequence[tuple[int, int, int]], tmp_path: Path) -> None:
    told = back(tmp_path, {}, *lines).sentence
    assert told.startswith("Rolled back 2 times between" if len(lines) == 2 else "Rolled back once")


def test_one_that_was_undone_did_neither_good_nor_harm(tmp_path: Path) -> None:
    """Pitfall: the loss fell soon after it, so it was said to have helped."""
    faults = {**spoiled(range(200, 218)), **dict.fromkeys(range(212, 217), HELD)}
    found = back(tmp_path, faults, (212, 101, 1), undone=[(216, 1)])
    assert (found.judged, found.better, found.in_vain, found.often) == (0, 0, False, False)
    assert found.sentence == (
        "Rolled back once, at step 212, to the state before step 101; that was undone at step 216: "
        "the loss was as high with the older parameters, so the data have changed."
    )


def test_many_that_were_undone_are_no_cause_that_lasts(tmp_path: Path) -> None:
    faults = dict(spoiled(range(100, 400)))
    for first in (112, 212, 312):
        faults |= dict.fromkeys(range(first, first + 5), HELD)
    lines = (212, 101, 2), (312, 201, 1)
    found = back(tmp_path, faults, *lines, undone=[(216, 2), (316, 1)])
    assert (found.undone, found.in_vain, found.often) == (3, False, False)
    assert "; all were undone, the last at step 316: the loss was as high" in found.sentence
    found = back(tmp_path, faults, *lines, undone=[(216, 1), (316, 1)])
    assert "; 2 of these were undone, the last at step 316: the loss was as high" in found.sentence
    assert (found.judged, found.in_vain) == (1, True)
    assert found.sentence.endswith("The loss was not lower after the rest: rolling back did not "
                                   "help.")  # fmt: skip


@pytest.mark.parametrize("undone", [116, 216])
def test_of_two_the_one_that_was_undone_does_not_count(undone: int, tmp_path: Path) -> None:
    """Pitfall: a log has one note for several, with the step of the last."""
    kept = 112 if undone == 216 else 212
    faults = {**spoiled(range(100, 118), range(200, 218)), 112: HELD, 212: HELD}
    faults |= spoiled(range(kept + 1, kept + 6), loss=0.1)
    found = back(tmp_path, faults, (212, 101, 2), undone=[(undone, 1)])
    assert (found.times, found.judged, found.better) == (2, 1, 1)
    assert f"; one of these was undone, at step {undone}: " in found.sentence
    assert found.sentence.endswith("After the rest, the loss was lower.")


def test_notes_of_other_members_and_of_people_undo_nothing(tmp_path: Path) -> None:
    notes = [
        noted(10, f"member 3: {undone_note(1)}"),
        noted(20, f"member 1-3: {undone_note(2)}"),
        noted(30, f"I saw: {undone_note(1)}"),
        noted(40, undone_note(12)),
    ]
    found = {}
    for name in ("run", "run, member 3", "run, member 1-3"):
        run = write_run(tmp_path / "run.jsonl", [*steps(50), *notes], name=name)
        found[name] = [tuple(one) for one in undone_in(run)]
    assert found == {
        "run": [(40, 12)],
        "run, member 3": [(10, 1), (40, 12)],
        "run, member 1-3": [(20, 2), (40, 12)],
    }


@pytest.mark.parametrize("guarded", [True, False])
def test_back_off_that_takes_its_factor_back_is_no_trust_region(
    guarded: bool, tmp_path: Path
) -> None:
    """Pitfall: the factor rose tenfold in one step, as only that of a trust region was known to."""
    factors = {row: 0.5 if row < 212 else 0.05 if row < 216 else 0.501 for row in range(200, 300)}
    faults: dict[int, dict[str, Any]] = {row: {"lr_factor": one} for row, one in factors.items()}
    for row in range(212, 217) if guarded else range(1, 501):
        faults[row] = faults.get(row, {}) | HELD
    for events in (
        [noted(216, undone_note(1)), {"event": "rollback", "step": 212, "to": 101, "times": 1}],
        [],
    ):
        late = {row: {"lr_factor": 0.4} for row in range(300, 501)}  # else it rises at 300
        rows = steps(500, faults=faults | {r: faults.get(r, {}) | one for r, one in late.items()})
        assert is_governed(write_run(tmp_path / "run.jsonl", [*rows, *events])) == (not events)


@pytest.mark.parametrize(
    ("factors", "falls"),
    [
        ([1.0] * 9, 0),
        ([1.0, 0.1, 0.01, 0.011, 0.012], 2),  # back-off, which rises again
        ([1.0, 0.1, 0.01, 0.01, 0.01], 0),  # a plateau
        ([1.0, 0.01, 0.05, 0.2], 0),  # it has risen far enough
        ([], 0),
    ],
)
def test_back_off_that_left_the_steps_small(
    factors: list[float], falls: int, tmp_path: Path
) -> None:
    faults = {step: {"lr_factor": factor} for step, factor in enumerate(factors, start=1)}
    assert slowed(write_run(tmp_path / "run.jsonl", steps(len(factors), faults=faults))) == falls
