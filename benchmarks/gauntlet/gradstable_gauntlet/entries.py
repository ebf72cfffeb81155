"""What takes part: the entries of this package, and those that users bring in files."""

import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.storms import STORMS, Storm
from gradstable_gauntlet.task import Task
from gradstable_gauntlet.tasks import TASKS

# A task costs two more compilations for every dtype in which it computes.
LOW_PRECISION_TASKS = ("digits_cnn", "deep_mlp", "lm_markov")


class Entries(NamedTuple):
    """All that can be chosen from."""

    tasks: Mapping[str, Callable[..., Task]]
    contestants: Mapping[str, Contestant]
    storms: Mapping[str, Storm]


def entries(files: Iterable[Path] = ()) -> Entries:
    """Return the built-in entries and those in these files.

    Args:
      files: Python files with one or more of ``CONTESTANTS`` (name to a function from a schedule to
        a transform, or to a ``Contestant``), ``TASKS`` (name to a function that returns a ``Task``)
        and ``STORMS`` (name to a ``Storm``). They are executed.

    Raises:
      ValueError: if a file has none of them, or a name is already taken.
    """
    known = Entries(dict(TASKS), dict(CONTESTANTS), dict(STORMS))
    for file in files:
        found = runpy.run_path(str(file))
        brought = Entries(
            tasks=found.get("TASKS", {}),
            contestants={n: _contestant(n, c) for n, c in found.get("CONTESTANTS", {}).items()},
            storms=found.get("STORMS", {}),
        )
        if not any(brought):
            msg = f"{file}: has neither CONTESTANTS nor TASKS nor STORMS: define one as a dict"
            raise ValueError(msg)
        for mine, theirs in zip(known, brought, strict=True):
            taken = sorted(mine.keys() & theirs.keys())
            if taken:
                msg = f"{file}: the name {taken[0]!r} is already taken: choose another"
                raise ValueError(msg)
        known = Entries(
            tasks={**known.tasks, **brought.tasks},
            contestants={**known.contestants, **brought.contestants},
            storms={**known.storms, **brought.storms},
        )
    return known


def storms_for(task: str, storms: Mapping[str, Storm]) -> dict[str, Storm]:
    """Return the storms that a task is sent through; calm weather is always one."""
    chosen = {"none": STORMS["none"], **storms}
    low = task in LOW_PRECISION_TASKS
    return {name: storm for name, storm in chosen.items() if low or storm.dtype == "float32"}


def choose(kind: str, names: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named entries, in the order of ``known``.

    Raises:
      ValueError: if a name is unknown.
    """
    wanted = list(names)
    for name in wanted:
        if name not in known:
            msg = f"there is no {kind} {name!r}; choose from: {', '.join(known)}"
            raise ValueError(msg)
    return {name: entry for name, entry in known.items() if name in wanted}


def _contestant(name: str, brought: Any) -> Contestant:
    if isinstance(brought, Contestant):
        return brought
    about = (getattr(brought, "__doc__", None) or "your own").strip().splitlines()[0]
    return Contestant(make=brought, about=about, base=name)
