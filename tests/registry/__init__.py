"""Every public name, once. One module per family; each has ``ENTRIES`` and perhaps ``OTHERS``.

The contract suite, the storm, the error tests, the docstring checks and the catalog are built from
it: a name that is exported but not registered fails a test.
"""

import importlib
import inspect
import operator
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import gradstable as gs
from tests.registry.entry import Case, Entry

__all__ = ["ROOMS", "Case", "Entry", "cases", "entries", "others", "public_names", "resolve"]

ROOMS = tuple(name for name in gs.__all__ if inspect.ismodule(getattr(gs, name)))


def _families() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(__path__):
        if module.name != "entry":
            yield importlib.import_module(f"{__name__}.{module.name}")


def entries() -> list[Entry]:
    """Return the entries of all families."""
    return [entry for family in _families() for entry in family.ENTRIES]


def others() -> list[str]:
    """Return the public names that are not transforms, rules or losses: types, readers, rooms."""
    return [name for family in _families() for name in getattr(family, "OTHERS", ())]


def cases() -> list[Case]:
    """Return all configurations of all transforms."""
    return [case for entry in entries() for case in entry.cases]


def public_names() -> list[str]:
    """Return every name that ``gradstable`` and its public rooms export, once.

    A name that is exported at the top as well as in its room is listed by the shorter form.
    """
    names = list(gs.__all__)
    for room in ROOMS:
        inside = vars(getattr(gs, room))
        names += [
            f"{room}.{name}"
            for name in inside["__all__"]
            if getattr(gs, name, None) is not inside[name]
        ]
    return names


def resolve(name: str) -> Any:
    """Return what ``gs.<name>`` is."""
    return operator.attrgetter(name)(gs)
