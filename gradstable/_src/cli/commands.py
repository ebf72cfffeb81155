"""The table of commands, which imports only the command that is called."""

import contextlib
import difflib
import errno
import importlib
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import NamedTuple

import gradstable


class Command(NamedTuple):
    """One line of the table of commands.

    Attributes:
      module: the module with its ``main(args) -> int``; imported when the command is called.
      needs: the pip requirement that provides what it needs.
      summary: what it does, in one line.
    """

    module: str
    needs: str
    summary: str


COMMANDS = {
    "demo": Command(
        module="gradstable._src.cli.demo.command",
        needs="gradstable[demo]",
        summary="train a small network through a storm of bad batches, with and without the guard",
    ),
    "report": Command(
        module="gradstable._src.cli.report",
        needs="gradstable",
        summary="make a page about a recorded run, or one that compares several",
    ),
    "doctor": Command(
        module="gradstable._src.cli.doctor",
        needs="gradstable",
        summary="diagnose a recorded run, and say what to do about it",
    ),
    "autopsy": Command(
        module="gradstable._src.cli.autopsy",
        needs="gradstable",
        summary="find the operation that made the NaN of a captured step",
    ),
    "replay": Command(
        module="gradstable._src.cli.replay",
        needs="gradstable",
        summary="run a captured step again: the data, or the machine",
    ),
}
# Other distributions add commands under this name: NAME = "MODULE:main".
GROUP = "gradstable.commands"
# Our own commands that come with another distribution.
ELSEWHERE = {"gauntlet": "gradstable-gauntlet"}

DONE, FAILED, WRONG_USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
EXITS = {
    DONE: "it did what it was asked to, whatever it found",
    FAILED: "it failed: a file is not what it should be, a package is missing",
    WRONG_USAGE: "wrong usage, or a file that cannot be opened",
    INTERRUPTED: "it was interrupted",
    UNREAD: "nobody read its output to the end, as in `gradstable doctor ... | head`",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def run(args: Sequence[str] | None = None) -> int:
    """Find the command and run it; return the exit status."""
    words = list(sys.argv[1:] if args is None else args)
    what = " ".join(["gradstable", *words[:1]])
    try:
        status = _run(words)
        if sys.stdout is not None:  # closed by `>&-`
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{what}: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return UNREAD
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        _give_up_output()
        print(f"{what}: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        return FAILED
    return status


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return DONE
    if words[0] == "--version":
        print(f"gradstable {gradstable.__version__}")
        return DONE
    name, *rest = words
    command = commands().get(name)
    if command is None:
        hint = f"; it comes with {ELSEWHERE[name]}" if name in ELSEWHERE else ""
        near = difflib.get_close_matches(name, commands(), n=1)
        hint = hint or (f"; did you mean {near[0]}?" if near else "")
        print(f"gradstable: there is no command {name!r}{hint}\n\n{usage()}", file=sys.stderr)
        return WRONG_USAGE
    return _call(name, command, rest)


def _give_up_output() -> None:
    """Let what is still in the buffer go nowhere: Python would try to write it at the end."""
    with contextlib.suppress(OSError):  # no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def commands() -> Mapping[str, Command]:
    """Return the commands of this and other distributions, without importing them."""
    added = {
        point.name: Command(
            module=point.module,
            needs=point.dist.name if point.dist else point.name,
            summary=point.dist.metadata["Summary"] if point.dist else "",
        )
        for point in entry_points(group=GROUP)
    }
    return {**added, **COMMANDS}


def usage() -> str:
    """Return the help text of the program."""
    known = commands()
    width = max(map(len, known))
    lines = [_entry(name, command.summary, width) for name, command in known.items()]
    statuses = [_entry(str(status), meaning, 3) for status, meaning in EXITS.items()]
    return "\n".join(
        [
            "gradstable: training that does not blow up.",
            "",
            "usage: gradstable COMMAND [OPTIONS]",
            "",
            "commands:",
            *lines,
            "",
            "`gradstable COMMAND --help` lists the options of a command.",
            "`gradstable --version` prints the version.",
            "",
            "exit status:",
            *statuses,
        ]
    )


def _entry(name: str, text: str, width: int) -> str:
    first = f"  {name:<{width}}  "
    return textwrap.fill(text, 80, initial_indent=first, subsequent_indent=" " * len(first))


def _call(name: str, command: Command, args: Sequence[str]) -> int:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gradstable"):
            raise
        print(
            f"gradstable {name} needs {error.name}, which is not installed. Install it with\n"
            f"  pip install '{command.needs}'",
            file=sys.stderr,
        )
        return FAILED
    try:
        return module.main(args)
    except SystemExit as stop:  # the option parser exits this way after help and errors
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
