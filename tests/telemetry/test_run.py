"""A run file that something has happened to: what is sound is kept, what is broken is counted."""

import gzip
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstable._src.cli import main
from gradstable._src.report.events import events
from gradstable._src.report.summary import verdict
from gradstable._src.telemetry.fields import LINES, Kind
from gradstable.doctor import diagnose
from gradstable.report import render
from gradstable.telemetry import Run, read_run
from tests.report.running import header, steps, stormy

Lines = list[bytes]
STEPS = 60
HEADER = json.dumps(header(4)).encode()
LEAVES = json.dumps({**header(4), "event": "leaves"}).encode()
SOUND: Lines = [HEADER, *(json.dumps(event).encode() for event in stormy(STEPS))]
# Each of these is wrong for at least one kind of field, and none may be a surprise.
WILD: list[Any] = [
    None, True, 0, -1, -7, 1.5, 3.0, 5e-324, 1e308, -1e308, float("inf"), float("nan"), 2**31,
    2**63, -(2**64), 10**400, "", "x", "1.5", "nan", "inf", [], [1], [[1.0]], [None], ["x"] * 4,
    [True] * 4, [1e308] * 4, ["nan"] * 4, {}, {"a": [1]},
]  # fmt: skip
# What a field of a kind may be; all else breaks the line.
ALLOWED: dict[Kind, Callable[[Any], bool]] = {
    Kind.STEP: lambda v: _whole(v) and 1 <= v < 2**31,
    Kind.INDEX: lambda v: v is None or (_whole(v) and -1 <= v < 2**31),
    Kind.COUNT: lambda v: v is None or (_whole(v) and -(2**63) <= v < 2**63),
    Kind.NUMBER: lambda v: v is None or _number(v),
    Kind.NUMBERS: lambda v: v is None or (type(v) is list and all(map(_number, v))),
    Kind.TEXT: lambda v: v is None or type(v) is str,
    Kind.TEXTS: lambda v: v is None or (type(v) is list and all(type(one) is str for one in v)),
    Kind.COUNTS: lambda v: (
        v is None or (type(v) is list and all(_whole(one) and abs(one) < 2**63 for one in v))
    ),
    Kind.OBJECT: lambda v: v is None or type(v) is dict,
}


def _whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**308
    return value is None or type(value) is float or value in ("nan", "inf", "-inf")


def read(path: Path, data: bytes) -> Run:
    path.write_bytes(data)
    return read_run(path)


def joined(lines: Lines) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def step_numbers(lines: Lines) -> list[int]:
    events = [json.loads(line) for line in lines]
    return sorted({event["step"] for event in events if event["event"] == "step"})


def test_a_broken_line_in_the_middle_costs_itself_only(tmp_path: Path) -> None:
    lines = [*SOUND]
    lines[20] = lines[20][:40]
    run = read(tmp_path / "run.jsonl", joined(lines))
    assert run.step.tolist() == step_numbers(SOUND[:20] + SOUND[21:])
    assert run.damaged == 1
    assert run.remarks == ("line 21: cut off",)
    assert "1 line of the file was broken and left out (line 21: cut off)" in verdict(run).text
    told = {one.name: one for one in diagnose(run)}["log_incomplete"]
    assert "1 line of the file broken and left out (line 21: cut off)" in told.sentence
    assert ("broken lines", 1) in [piece[:2] for piece in told.evidence]


@pytest.mark.parametrize("length", [1, 100, 70_000])
def test_nul_bytes_after_a_loss_of_power(length: int, tmp_path: Path) -> None:
    """Pitfall: the run went on behind them, in the same line."""
    torn, nul = SOUND[20][:40], b"\0" * length
    data = joined(SOUND[:20]) + torn + nul + joined(SOUND[21:])
    run = read(tmp_path / "run.jsonl", data)
    assert run.step.tolist() == step_numbers(SOUND[:20] + SOUND[21:])
    assert run.damaged == 1


def test_what_is_glued_to_another_line_is_found(tmp_path: Path) -> None:
    run = read(tmp_path / "run.jsonl", b"".join(SOUND) + b"\n")
    assert run.step.tolist() == step_numbers(SOUND)
    assert not run.damaged


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"[" * 50_000, id="deeply nested"),
        pytest.param(b'{"event": ' * 5_000, id="objects in objects"),
        pytest.param(b'{"event": "step", "step": ' + b"9" * 5_000 + b"}", id="5000 digits"),
        pytest.param(b"nonsense", id="no JSON"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(b"{}", id="no event"),
        pytest.param(b'{"event": ["step"]}', id="an event that is a list"),
        pytest.param(b'{"event": "stop", "step": 3}', id="no event of ours"),
        pytest.param(b'{"event": "step"}', id="no step"),
        pytest.param(b'{"event": "note", "step": 1, "text": "\xff\xfe"}', id="no UTF-8"),
        pytest.param(b"\0" * 4096, id="NUL bytes"),
    ],
)
def test_noise_between_sound_lines(noise: bytes, tmp_path: Path) -> None:
    run = read(tmp_path / "run.jsonl", joined([*SOUND[:9], noise, *SOUND[9:]]))
    assert run.step.tolist() == step_numbers(SOUND)
    assert run.damaged == 1
    assert run.remarks[0].startswith("line 10: ")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf" + joined(SOUND), id="byte order mark"),
        pytest.param(joined(SOUND).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(joined(SOUND).replace(b"\n", b"\n\n  \n"), id="empty lines"),
        pytest.param(joined(SOUND)[:-1], id="no newline at the end"),
        pytest.param(joined([HEADER, *SOUND[:0:-1]]), id="backwards"),
        pytest.param(joined(SOUND[1:] + SOUND[:1]), id="header at the end"),
        pytest.param(joined(SOUND + SOUND), id="twice"),
    ],
)
def test_what_harms_nothing_is_no_damage(data: bytes, tmp_path: Path) -> None:
    whole, run = read(tmp_path / "whole", joined(SOUND)), read(tmp_path / "run", data)
    assert not run.damaged
    assert not run.remarks
    assert run.leaves == whole.leaves
    for name in ("step", "loss", "grad_norm", "reason", "leaf_steps", "leaf_norms"):
        np.testing.assert_array_equal(getattr(run, name), getattr(whole, name))


def test_a_lost_header_costs_names_only(tmp_path: Path) -> None:
    run = read(tmp_path / "mine.jsonl", joined([HEADER[:30], *SOUND[1:]]))
    assert run.name == "mine"
    assert run.step.tolist() == step_numbers(SOUND)
    assert run.leaves == ("leaf 0", "leaf 1", "leaf 2", "leaf 3")
    assert run.leaf_norms.shape[1] == 4
    assert any("the first line is lost" in remark for remark in run.remarks)
    assert "largest in leaf 1" in events(run)[1].leaf


def test_other_leaves_than_are_named_are_numbered(tmp_path: Path) -> None:
    """Pitfall: a mask around the guard, and the log given all parameters."""
    lines = [json.dumps(header(6)).encode(), *SOUND[1:]]
    run = read(tmp_path / "run.jsonl", joined(lines))
    assert run.leaves == ("leaf 0", "leaf 1", "leaf 2", "leaf 3")
    assert run.remarks == ("6 leaves are named, but there are norms of 4: leaves are numbered",)
    assert not run.damaged
    assert run.remarks[0] in verdict(run).text


def test_of_a_step_that_is_there_twice_the_later_record_counts(tmp_path: Path) -> None:
    again = [json.dumps({**one, "loss": 7.0}).encode() for one in steps(3)]
    run = read(tmp_path / "run.jsonl", joined([*SOUND, *again]))
    assert run.loss[:3].tolist() == [7.0] * 3
    assert run.loss[3] != 7.0


@pytest.mark.parametrize("odd", [2, 70])
def test_a_broken_number_takes_no_other_steps_place(odd: int, tmp_path: Path) -> None:
    """Pitfall: a bit of a step flipped, and the record of another step was replaced by it."""
    events = steps(80)
    events[50]["step"] = odd
    run = read(tmp_path / "run.jsonl", joined([HEADER, *(json.dumps(e).encode() for e in events)]))
    assert 51 not in run.step
    assert run.loss[odd - 1 - (odd > 51)] == events[odd - 1]["loss"]


@pytest.mark.parametrize(
    ("later", "ended"), [((), True), ((61,), False), ((3,), True)], ids=["closed", "on", "again"]
)
def test_a_run_that_went_on_after_its_end_is_open(
    later: tuple[int, ...], ended: bool, tmp_path: Path
) -> None:
    more = [json.dumps({**steps(1)[0], "step": step}).encode() for step in later]
    assert read(tmp_path / "run.jsonl", joined([*SOUND, *more])).ended == ended


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a record of a run"),
        (bytes(range(256)), "is not a record of a run"),
        (b"\0" * 1000, "is not a record of a run"),
        (gzip.compress(joined(SOUND)), "it is compressed: decompress it first"),
        (joined(SOUND).decode().encode("utf-16"), "is not a record of a run"),
        (b'{"event": "step", "step": 1}\n', "is not a record of a run"),
        (b'{"event": "run", "format": 99}\n', "has format 99, but this version reads up to 1"),
    ],
)
def test_where_nothing_is_sound_it_is_said(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "run.jsonl", data)


def test_a_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a record of a run: it is a folder"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("event", "field"), [(event, field) for event, known in LINES.items() for field in known]
)
def test_every_field_may_be_anything(event: str, field: str, tmp_path: Path) -> None:
    """Generated from the table of lines: a field that is added to it is tried here."""
    kind = LINES[event][field]
    before = [HEADER, LEAVES, *SOUND[1:]] if event == "leaves" else SOUND
    place = next(
        at for at, line in enumerate(before)
        if json.loads(line)["event"] == event and (event != "step" or b"leaf_norms" in line)
    )  # fmt: skip
    others = step_numbers(before[:place] + before[place + 1 :])
    for value in WILD:
        changed = {**json.loads(before[place]), field: value}
        lines = [*before[:place], json.dumps(changed).encode(), *before[place + 1 :]]
        path = tmp_path / "run.jsonl"
        path.write_bytes(joined(lines))
        if field == "format" and ALLOWED[kind.kind](value) and (value or 0) > 1:
            with pytest.raises(ValueError, match="has format"):
                read_run(path)
            continue
        run = read_run(path)
        assert set(others) <= set(run.step.tolist())
        sound = ALLOWED[kind.kind](value) and not (kind.required and value is None)
        # Another number of leaves than all others have, and a stretch that ends before it begins.
        sound &= not (field == "leaf_norms" and isinstance(value, list) and len(value) != 4)
        # Taps are lists of so many numbers by name.
        sound &= not (field == "taps" and bool(value))
        sound &= not (event == "lost" and sound and changed["last"] < changed["first"])
        assert run.damaged == (not sound), value
        assert verdict(run)


@pytest.mark.parametrize("field", LINES["step"])
@pytest.mark.parametrize("value", [None, 1e308, -1e308, "inf", "nan", -1, 2**31 - 1, [1e308] * 4])
def test_a_column_of_wild_values_is_judged(field: str, value: Any, tmp_path: Path) -> None:
    lines = [json.dumps({**one, field: value}).encode() for one in steps(40)]
    run = read(tmp_path / "run.jsonl", joined([*SOUND[:1], *lines, *SOUND[-2:]]))
    assert diagnose(run)
    assert verdict(run)


@pytest.mark.slow
@pytest.mark.parametrize("field", LINES["step"])
def test_a_column_of_wild_values_is_drawn(field: str, tmp_path: Path) -> None:
    every = [None, 1e308, 0.0, -1.0, 5e-324, "inf", "nan", 3, 2**31 - 1, [1e308, 0, "nan", "inf"]]
    for pair in itertools.combinations_with_replacement(every, 2):
        faults = {step: {field: pair[step % 2]} for step in range(1, 31)}
        lines = [json.dumps(one).encode() for one in steps(30, faults=faults)]
        run = read(tmp_path / "run.jsonl", joined([*SOUND[:1], *lines, *SOUND[-3:]]))
        assert diagnose(run)
        assert render([run])


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_survived(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    path = tmp_path / "run.jsonl"
    for number in range(16):
        data, untouched = _damaged(rng)
        path.write_bytes(data)
        try:
            run = read_run(path)
        except ValueError:
            assert not untouched
            continue
        assert set(untouched) <= set(run.step.tolist())
        assert main(["doctor", str(path), "--json"]) == 0
        json.loads(capsys.readouterr().out)
        if seed < 2 and number == 0:
            assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) == 0
            capsys.readouterr()


def _damaged(rng: random.Random) -> tuple[bytes, list[int]]:
    """Return a run file with a few faults in it, and the steps that none of them touched."""
    lines, touched = [*SOUND], set[int]()
    for _ in range(rng.choice([1, 3, 20])):
        at = rng.randrange(1, len(lines))  # a bit of the first line may make it one of the future
        line = bytearray(lines[at])
        place = rng.randrange(len(line) + 1)
        kind = rng.choice(["cut", "flip", "nul", "noise", "field", "gone"])
        if kind == "cut":
            line = line[:place]
        elif kind == "flip" and place < len(line):
            line[place] ^= 1 << rng.randrange(8)
        elif kind == "nul":
            line[place : place + 50] = b"\0" * len(line[place : place + 50])
        elif kind == "noise":
            line[place:place] = rng.randbytes(rng.choice([1, 300]))
        elif kind == "field" and at not in touched:
            event = json.loads(bytes(line))
            event[rng.choice(list(event))] = rng.choice(WILD)
            line = bytearray(json.dumps(event).encode())
        elif kind == "gone":
            line = bytearray()
        lines[at] = bytes(line)
        touched.add(at)
    kept = [line for at, line in enumerate(SOUND) if at not in touched]
    end = rng.choice([b"", b"\0" * 500, b'{"event": "step", "st', b"\xef\xbb\xbf"])
    return joined(lines) + end, step_numbers(kept)
