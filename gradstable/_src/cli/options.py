"""The options of a command: help that fits a terminal, errors in a sentence, exit statuses."""

import argparse
import difflib
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

_WIDEST = 96
_WRONG_USAGE = 2


class Parser(argparse.ArgumentParser):
    """The options of ``gradstable NAME``.

    Args:
      name: the name of the command.
      text: what it does; each line is a paragraph.
      exits: what its exit statuses mean.
    """

    def __init__(self, name: str, text: str, *, exits: Mapping[int, str]) -> None:
        statuses = [f"  {status:<3} {meaning}" for status, meaning in exits.items()]
        super().__init__(
            prog=f"gradstable {name}",
            description=text,
            epilog="\n".join(["exit status:", *statuses]),
            formatter_class=_Help,
            allow_abbrev=False,
        )

    def parse(self, args: Sequence[str]) -> Any:
        """Return the options; files and options may come in any order."""
        several = any(one.nargs == "*" and not one.option_strings for one in self._actions)
        parse = self.parse_known_intermixed_args if several else self.parse_known_args
        found, rest = parse(list(args))
        if rest:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            self.error(f"{rest[0]} is not known here{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with status 2."""
        sys.stderr.write(f"{self.prog}: {message}\n`{self.prog} --help` lists the options.\n")
        sys.exit(_WRONG_USAGE)


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST) - 2
        super().__init__(prog, max_help_position=28, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [
            textwrap.fill(
                line,
                width,
                initial_indent=indent,
                subsequent_indent=indent + " " * 6 * line.startswith(" "),
                break_on_hyphens=False,
            )
            for line in text.splitlines()
        ]
        return "\n".join(lines)
