"""Every public name, once. One module a family; each has ``ENTRIES`` and perhaps ``OTHERS``.

From here come the contract suite, the storm, the errors, the checks of docstrings and the catalog:
a name that is exported and not registered fails a test.
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
    """Return the public names that are no transform, rule or loss: types, readers, rooms."""
    return [name for family in _families() for name in getattr(family, "OTHERS", ())]


def cases() -> list[Case]:
    """Return all configurations of all transforms."""
    return [case for entry in entries() for case in entry.cases]


def public_names() -> list[str]:
    """Return every name that ``gradstable`` and its public rooms export, once.

    What is on top as well as in its room goes by the shorter name.
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
