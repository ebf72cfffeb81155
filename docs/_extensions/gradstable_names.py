"""What is public, for the pages and for the test of them."""

import inspect
from typing import Any

import gradstable


def public_names() -> list[str]:
    """Return every public name: modules and their contents."""
    names: list[str] = []
    for name in gradstable.__all__:
        names.append(name)
        value = getattr(gradstable, name)
        if inspect.ismodule(value):
            names += [f"{name}.{inner}" for inner in value.__all__]
    return names


def names_by_object() -> list[list[str]]:
    """Return the names of every public object; a few have two."""
    names: dict[int, list[str]] = {}
    for name in public_names():
        names.setdefault(id(resolve(name)), []).append(name)
    return list(names.values())


def resolve(name: str) -> Any:
    """Return what ``gs.<name>`` is, or ``None``."""
    found: Any = gradstable
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
