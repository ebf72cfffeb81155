"""All that can be chosen from, as text for a terminal."""

import shlex
import textwrap
from typing import Any

from gradstable_gauntlet.entries import Entries

_WIDTH, _COLUMN = 80, 26


def listing(known: Entries) -> str:
    """Return the names as a shell takes them, each with a line about it."""
    return "\n\n".join(
        "\n".join([f"--{kind}", *(_entry(name, _about(one)) for name, one in named.items())])
        for kind, named in known._asdict().items()
    )


def _about(entry: Any) -> str:
    made: Any = entry() if callable(entry) else entry  # a task says what it is once it is made
    return made.about


def _entry(name: str, about: str) -> str:
    first = f"  {shlex.quote(name)}"
    rest = " " * _COLUMN
    if len(first) > _COLUMN - 2:
        text = textwrap.fill(about, _WIDTH, initial_indent=rest, subsequent_indent=rest)
        return f"{first}\n{text}"
    first = first.ljust(_COLUMN)
    return textwrap.fill(about, _WIDTH, initial_indent=first, subsequent_indent=rest)
