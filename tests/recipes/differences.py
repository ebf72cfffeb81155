"""The table of the migration page that says where we differ from optax under the same name."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from tests.registry import public_names, resolve

PAGE = Path(__file__).parents[2] / "docs" / "migration" / "optax.md"
HEADING = "## Where functions of the same name differ"
ALL = "all"


class Row(NamedTuple):
    """One row: which functions, and which arguments or, for updates, with which arguments."""

    functions: tuple[str, ...]
    arguments: tuple[str, ...]
    of_update: bool


def table() -> list[Row]:
    """Return the rows of the table."""
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = []
    for line in lines:
        functions, what, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        names = (ALL,) if functions == ALL else tuple(_quoted(functions))
        rows.append(Row(names, tuple(_quoted(what)), what.startswith("the update")))
    return rows


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def shared() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Return what has the same name here and in optax or optax.contrib: ours and theirs."""
    found = {}
    for path in public_names():
        if path.startswith(("losses.", "rules.")):  # no transforms
            continue
        name, ours = path.rpartition(".")[2], resolve(path)
        theirs = getattr(optax, name, None) or getattr(optax.contrib, name, None)
        if inspect.isfunction(ours) and callable(theirs):
            found[name] = (ours, theirs)
    return found


def differing_arguments(ours: Callable[..., Any], theirs: Callable[..., Any]) -> set[str]:
    """Return the arguments that one of the two has alone, or with another default."""
    own, others = (inspect.signature(made).parameters for made in (ours, theirs))
    alone = own.keys() ^ others.keys()
    both = own.keys() & others.keys()
    return alone | {name for name in both if not same(own[name].default, others[name].default)}


def same(one: Any, other: Any) -> bool:
    """Whether two defaults are equal; functions are, if they map numbers to the same."""
    if callable(one) and callable(other) and not inspect.isclass(one):
        at = jnp.asarray([1.0, 7.0, 1000.0])
        return bool(np.allclose(one(at), other(at)))
    return bool(one == other)
