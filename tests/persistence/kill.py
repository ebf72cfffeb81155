"""Where a training process kills itself, by SIGKILL: nothing is flushed, closed or waited for.

Python reports every file that is opened, renamed or removed to its audit hooks, before it happens,
whoever asks for it. So the points inside of Orbax need no hook in Orbax.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# Set when a save in the background has come to where it never goes on.
HANGING = threading.Event()

_Events = Callable[[str, str], bool]


class KillPoint(NamedTuple):
    """A moment in a run that saves every four steps, and where the next process begins."""

    step: int  # the step at which it happens; for those inside of a save, the step saved
    resumes: int  # the last step that is safe then
    half_written: bool = False  # whether an unfinished checkpoint is left behind
    event: _Events | None = None  # inside of Orbax: which event; else the worker knows
    count: int = 1  # which one of these events
    after: _Events | None = None  # they are counted from here on


def _makes_subfolder(event: str, path: str) -> bool:
    return event == "os.mkdir" and path.endswith(
        "/8.orbax-checkpoint-tmp/state.orbax-checkpoint-tmp"
    )


def _writes_tree_metadata(event: str, path: str) -> bool:
    return event == "open" and path.endswith("/state.orbax-checkpoint-tmp/_METADATA")


def _finishes_part(event: str, path: str) -> bool:
    return event == "os.rename" and "/8.orbax-checkpoint-tmp/" in path


def _commits(event: str, path: str) -> bool:
    return event == "os.rename" and path.endswith("/8.orbax-checkpoint-tmp")


def _commits_later(event: str, path: str) -> bool:
    return event == "os.rename" and path.endswith("/12.orbax-checkpoint-tmp")


def _reads(event: str, path: str) -> bool:
    return event == "open" and path.endswith("/8/state/_METADATA")


def _removes(event: str, path: str) -> bool:
    # The events of a tree that is removed have names without folders.
    return event == "os.remove" and "/" not in path


# In the order in which one run can die of all of them, one after the other.
KILL_POINTS = {
    "before the first save": KillPoint(step=2, resumes=0),
    "a step has just been started": KillPoint(step=6, resumes=4),
    "the folder has just been made": KillPoint(8, 4, half_written=True, event=_makes_subfolder),
    "arrays written, their index not": KillPoint(
        8, 4, half_written=True, event=_writes_tree_metadata
    ),
    "state there, place in the data not": KillPoint(
        8, 4, half_written=True, event=_finishes_part, count=2
    ),
    "all written, not committed": KillPoint(8, 4, half_written=True, event=_commits),
    "right after a save": KillPoint(step=8, resumes=8),
    "while loading": KillPoint(8, 8, event=_reads),
    "while training goes on during a save": KillPoint(
        13, 8, half_written=True, event=_commits_later
    ),
    "while an old one is removed": KillPoint(12, 12, event=_removes, count=2, after=_commits_later),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str) -> None:
    """Let this process die at a point inside of Orbax."""
    point = KILL_POINTS[name]
    if point.event is None:
        return
    sought = [point.event] * point.count
    if point.after is not None:
        sought.insert(0, point.after)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.mkdir", "os.rename", "os.remove") or not arguments[0]:
            return
        if not sought or not sought[0](event, os.fsdecode(arguments[0])):
            return
        del sought[0]
        if sought:
            return
        if point.step % 4:
            HANGING.set()  # the save stops here for good, and the worker dies in a later step
            time.sleep(600)
        die()

    sys.addaudithook(hook)
