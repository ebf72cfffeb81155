"""What takes part: the entries of this package, and those that users bring in files."""

import difflib
import errno
import os
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.contestants import CONTESTANTS
from gradstable_gauntlet.storms import FAIR_WEATHER, STORMS, Storm
from gradstable_gauntlet.task import Task
from gradstable_gauntlet.tasks import TASKS

# A task costs two more compilations for every dtype in which it computes.
LOW_PRECISION_TASKS = ("digits_cnn", "deep_mlp", "lm_markov")
# Healthy tasks, on which what protects can do harm.
FAIR_TASKS = (
    "two_heads", "two_heads_rare", "two_heads_even", "three_heads", "sparse_reward", "triplet",
    "wgan", "policy",
)  # fmt: skip
# The groups of storms that a task is sent through, if not all: faults on healthy tasks would only
# dilute the tables.
ONLY = dict.fromkeys(FAIR_TASKS, (STORMS["none"].group, FAIR_WEATHER))
# What a brought function is compared with, unless its file says otherwise.
DEFAULT_BASE = "adamw"


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
        and ``STORMS`` (name to a ``Storm``), and ``BASES`` (name of a contestant in this file to
        the name of its base). They are executed.

    Raises:
      ValueError: if a file has none of them, a name is already taken, or a base is not one.
    """
    known = Entries(dict(TASKS), dict(CONTESTANTS), dict(STORMS))
    for file in files:
        found = _executed(file)
        brought = Entries(
            tasks=found.get("TASKS", {}),
            contestants=_contestants(file, found),
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
    _check_bases(known.contestants)
    return known


def storms_for(task: str, storms: Mapping[str, Storm]) -> dict[str, Storm]:
    """Return the storms that a task is sent through; calm weather is always one."""
    chosen = {"none": STORMS["none"], **storms}
    low = task in LOW_PRECISION_TASKS
    return {
        name: storm
        for name, storm in chosen.items()
        if (low or storm.dtype == "float32") and (task not in ONLY or storm.group in ONLY[task])
    }


def choose(kind: str, names: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named entries, in the order of ``known``; names can be joined by commas.

    Raises:
      ValueError: if a name is unknown.
    """
    wanted: set[str] = set()
    for text in names:
        found = _split(text.strip(), known)
        if found is None:
            near = difflib.get_close_matches(text, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            msg = f"there is no {kind} {text!r}: {hint}--list shows all"
            raise ValueError(msg)
        wanted.update(found)
    return {name: entry for name, entry in known.items() if name in wanted}


def _split(text: str, known: Mapping[str, Any]) -> list[str] | None:
    """Return the names that make up a text; a name may itself have commas."""
    if text in known:
        return [text]
    for comma in (at for at, letter in enumerate(text) if letter == ","):
        first = text[:comma].strip()
        rest = _split(text[comma + 1 :].strip(), known) if first in known else None
        if rest is not None:
            return [first, *rest]
    return None


def with_bases(contestants: Mapping[str, Contestant]) -> dict[str, Contestant]:
    """Return the chosen contestants, each with a base.

    Those that name none are compared with AdamW if it is chosen, otherwise with themselves.
    """
    return {
        name: one
        if one.base
        else one._replace(base=DEFAULT_BASE if DEFAULT_BASE in contestants else name)
        for name, one in contestants.items()
    }


def _executed(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    try:
        return runpy.run_path(str(file))
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__)
                 if one.filename == str(file)]  # fmt: skip
        where = f"{file}, line {lines[-1]}" if lines else f"{file}"
        msg = f"{where}: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


def _contestants(file: Path, found: Mapping[str, Any]) -> dict[str, Contestant]:
    brought = {name: _contestant(one) for name, one in found.get("CONTESTANTS", {}).items()}
    for name, base in found.get("BASES", {}).items():
        if name not in brought:
            msg = f"{file}: BASES has {name!r}, which is not in CONTESTANTS: add it, or remove it"
            raise ValueError(msg)
        brought[name] = brought[name]._replace(base=base)
    return brought


def _contestant(brought: Any) -> Contestant:
    if isinstance(brought, Contestant):
        return brought
    about = (getattr(brought, "__doc__", None) or "your own").strip().splitlines()[0]
    return Contestant(make=brought, about=about, base="")


def _check_bases(known: Mapping[str, Contestant]) -> None:
    """Check that every base is a contestant, and compared with no other but itself."""
    for name, one in known.items():
        if one.base and one.base not in known:
            bare = ", ".join(other for other, it in known.items() if it.base == other)
            msg = f"the base {one.base!r} of {name!r} is no contestant; choose from: {bare}"
            raise ValueError(msg)
        if one.base and known[one.base].base not in ("", one.base):
            further = known[one.base].base
            msg = f"the base {one.base!r} of {name!r} has a base itself: name that, {further!r}"
            raise ValueError(msg)
