"""Docstrings of a family: shared parts are written once and inserted where they belong."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

_SECTION = re.compile(r"^(Args|Returns|Raises|Example|Source):\n", re.MULTILINE)
_ENTRY = re.compile(r"^  (?=\w)", re.MULTILINE)
_WIDTH = 92


def completed(function: Callable[..., Any], *, arguments: Mapping[str, str], **shared: str) -> str:
    """Return the docstring of a function with the sections that it leaves to its family.

    Args:
      function: has a docstring; its own entry for an argument replaces the shared one.
      arguments: shared entries by argument name; a default that they do not mention is added.
      **shared: whole sections, such as ``Returns``, for a docstring without them.

    Returns:
      The docstring, with one entry per argument in the order of the signature.
    """
    body, *rest = _SECTION.split(inspect.getdoc(function) or "")
    sections = {**shared, **dict(zip(rest[::2], rest[1::2], strict=True))}
    own = dict(_named(entry) for entry in _ENTRY.split(sections.get("Args", "")) if entry.strip())
    parameters = inspect.signature(function).parameters.values()
    sections["Args"] = "".join(
        own[one.name] if one.name in own else _entry(one, arguments[one.name]) for one in parameters
    )
    order = ("Args", "Returns", "Raises", "Example", "Source")
    texts = [f"{name}:\n{sections[name].rstrip()}" for name in order if name in sections]
    return "\n\n".join([body.rstrip(), *texts]) + "\n"


def _named(entry: str) -> tuple[str, str]:
    return entry.partition(":")[0], f"  {entry.rstrip()}\n"


def _entry(parameter: inspect.Parameter, text: str) -> str:
    default = parameter.default
    if default is not parameter.empty and default is not None and "Default" not in text:
        text = f"{text} Default {_shown(default)}."
    wrapper = textwrap.TextWrapper(_WIDTH, initial_indent="  ", subsequent_indent="    ")
    wrapper.break_on_hyphens = False
    return wrapper.fill(f"{parameter.name}: {text}") + "\n"


def _shown(default: Any) -> str:
    if isinstance(default, float):
        return f"{default:g}".replace("e-0", "e-")
    return f"``{default!r}``"
