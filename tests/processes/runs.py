"""The launches that several tests look at, made once, and what they wrote down."""

import fcntl
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes.launch import Shape, launch
from tests.processes.training import ON_THE_WAY, SAVES

PAIR = Shape(2, 2)
# Fields of ``gs.health`` that are decisions or counts of them, and not rounded.
DECIDED = (
    "count",
    "accepted",
    "rejected",
    "clipped",
    "consecutive_rejected",
    "reason",
    "worst_leaf",
    "last_rejected",
)
# The checkpoint that other runs go on from.
SAVED = SAVES[0]
Lines = list[dict[str, Any]]


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder unless another worker of pytest has made it; wait if it is at it."""
    done = folder / "done"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def straight(root: Path) -> Path:
    """Train over two processes without a break."""

    def make(folder: Path) -> None:
        run = {"name": "run", "checkpoints": str(root / "saved"), "devices": 4}
        shutil.rmtree(root / "saved", ignore_errors=True)
        with launch(folder, "train", PAIR, arguments={"runs": [run]}, cache=root / "cache") as two:
            two.results()

    return once(root / "straight", make)


def alone(root: Path) -> Path:
    """Train in one process: on as many devices from the start, on fewer and on more from step 4."""
    straight(root)

    def make(folder: Path) -> None:
        runs: list[dict[str, Any]] = [
            {"name": "4", "checkpoints": str(root / "none"), "devices": 4, "saves": False}
        ]
        for devices in (2, 8):
            saved = copied(root, root / f"saved_{devices}")
            run = {"name": str(devices), "checkpoints": str(saved), "devices": devices}
            runs.append({**run, "saves": False, "resume": True, "only": ["rollback"]})
        with launch(folder, "train", Shape(1, 8), arguments={"runs": runs}) as one:
            one.results()

    return once(root / "alone", make)


def killed(root: Path) -> Path:
    """Go on from step 4 in new processes, of which the first is killed at step 10.

    It is the one that all are connected with, so that the end of it is noticed at once. What it
    takes to notice the end of another one is tried by a slow test.
    """
    straight(root)

    def make(folder: Path) -> None:
        saved = copied(root, root / "saved_killed")
        run = {"name": "run", "checkpoints": str(saved), "devices": 4, "resume": True}
        kill = {"dies": 0, "dies_at": 10}
        with launch(
            folder,
            "train",
            PAIR,
            arguments={"runs": [{**run, **kill}]},
            cache=root / "cache",
        ) as two:
            codes = two.codes()
        (folder / "codes.json").write_text(json.dumps(codes))

    return once(root / "killed", make)


def copied(root: Path, to: Path) -> Path:
    """Return a folder of checkpoints that has the one of step 4 and no other."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(root / "saved" / str(SAVED), to / str(SAVED))
    return to


def lines(folder: Path, process: int, *, name: str = "run") -> Lines:
    """Return what a process wrote down, step by step."""
    text = (folder / f"{name}-{process}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def result(folder: Path, process: int, *, name: str = "run") -> dict[str, Any]:
    """Return what a process has told at the end."""
    return json.loads((folder / f"result-{process}.json").read_text())[name]


def bits(of: Lines) -> list[Any]:
    """Return what must not depend on where a run began: all but what only a step can know."""
    return [
        (line["step"], {name: (run["all"], run["health"]) for name, run in line["runs"].items()})
        for line in of
    ]


def losses(of: Lines, name: str) -> np.ndarray:
    """Return the loss at every step that was taken with parameters to compare."""
    taken = [
        line["runs"][name]["seen"]["loss"]
        for line in of
        if line["runs"][name]["seen"] and (name, line["step"]) != ("rollback", ON_THE_WAY)
    ]
    return np.concatenate([number(loss, np.float32) for loss in taken])


def decisions(of: Lines, name: str, *, fields: Sequence[str] = DECIDED) -> list[list[int]]:
    """Return the fields of health that are decisions, step by step."""
    return [
        [int(number(line["runs"][name]["health"][field], np.int32)[0]) for field in fields]
        for line in of
    ]


def number(text: str, dtype: Any) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), dtype)
