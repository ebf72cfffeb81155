"""The table of events: equal neighbors share a row, and the telling ones stay."""

from pathlib import Path

from gradstable._src.report.events import events, most_telling, reasons
from gradstable.rules import Reason
from tests.report.running import CLIPPED, rejected, steps, stormy, write_run


def test_each_kind_is_told_once(tmp_path: Path) -> None:
    found = events(write_run(tmp_path / "run.jsonl", stormy(500)))
    assert [(one.steps, one.kind) for one in found] == [
        ("5", "note"),
        ("50", "rejected"),
        ("125–149", "not recorded"),
        ("166", "clipped"),
        ("250", "alarm"),
        ("251", "rollback"),
        ("333–337", "rejected"),
    ]
    assert (
        found[1].text == "the gradient norm was far above its usual range (norm 10³⁰, threshold 4)"
    )
    assert found[1].leaf == "largest in ['block_0']['bias']"
    assert found[-1].text == "the gradient had NaN or infinite entries"
    assert found[-1].leaf == "first in ['block_0']['bias']"
    assert "second moment lagged" in found[4].text
    assert "relative to the parameters" in found[4].text


def test_another_leaf_or_reason_is_another_row(tmp_path: Path) -> None:
    faults = {
        5: rejected(),
        6: rejected(),
        7: rejected(worst_leaf=2),
        8: rejected(Reason.OVERFLOW, worst_leaf=2),
        10: rejected(Reason.OVERFLOW, worst_leaf=2),
    }
    found = events(write_run(tmp_path / "run.jsonl", steps(20, faults=faults)))
    assert [one.steps for one in found] == ["5–6", "7", "8", "10"]


def test_what_got_through_is_told(tmp_path: Path) -> None:
    faults = {4: {"loss": "nan"}, 5: {"loss": "nan"}}
    (one,) = events(write_run(tmp_path / "run.jsonl", steps(9, faults=faults)))
    assert (one.steps, one.kind) == ("4–5", "not finite")


def test_clips_give_way_to_rejections(tmp_path: Path) -> None:
    clip = {"scale": CLIPPED, "reason": int(Reason.SPIKE_CLIPPED)}
    faults = dict.fromkeys(range(1, 900, 2), clip) | dict.fromkeys(range(800, 1000, 10), rejected())
    found = events(write_run(tmp_path / "run.jsonl", steps(1000, faults=faults)))
    shown = most_telling(found, most=50)
    assert len(found) == 470
    assert len(shown) == 50
    assert sum(one.kind == "rejected" for one in shown) == 20
    assert [one.first for one in shown] == sorted(one.first for one in shown)


def test_reasons_are_counted(tmp_path: Path) -> None:
    assert reasons(write_run(tmp_path / "run.jsonl", stormy(500))) == [
        ("the gradient had NaN or infinite entries", 5, 0),
        ("the gradient norm was far above its usual range", 1, 0),
        ("the gradient norm was well above its usual range", 0, 1),
    ]


def test_part_that_stood_out_is_named(tmp_path: Path) -> None:
    faults = {7: rejected(device=5), 8: rejected(device=5), 12: rejected(micro_batch=3)}
    found = events(write_run(tmp_path / "run.jsonl", steps(20, faults=faults)))
    assert [one.steps for one in found] == ["7–8", "12"]
    assert found[0].text.endswith("(device 5 stood out)")
    assert found[1].text.endswith("(micro-batch 3 stood out)")
