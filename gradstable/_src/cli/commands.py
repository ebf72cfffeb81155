"""The table of commands, which imports only the command that is called."""

import importlib
import sys
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
        needs="gradstable[report]",
        summary="make a page about a recorded run, or one that compares several",
    ),
    "doctor": Command(
        module="gradstable._src.cli.doctor",
        needs="gradstable[report]",
        summary="diagnose a recorded run, and say what to do about it",
    ),
    "autopsy": Command(
        module="gradstable._src.cli.autopsy",
        needs="gradstable[report]",
        summary="find the operation that made the NaN of a captured step",
    ),
    "replay": Command(
        module="gradstable._src.cli.replay",
        needs="gradstable[report]",
        summary="run a captured step again: the data, or the machine",
    ),
}
# Other distributions add commands under this name: NAME = "MODULE:main".
GROUP = "gradstable.commands"
# Our own commands that come with another distribution.
ELSEWHERE = {"gauntlet": "gradstable-gauntlet"}


def run(args: Sequence[str] | None = None) -> int:
    """Find the command and run it; return the exit status."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"gradstable {gradstable.__version__}")
        return 0
    name, *rest = words
    command = commands().get(name)
    if command is None:
        hint = f"; it comes with {ELSEWHERE[name]}" if name in ELSEWHERE else ""
        print(f"gradstable: there is no command {name!r}{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    return _call(name, command, rest)


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
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in known.items()]
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
        ]
    )


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
        return 1
    try:
        return module.main(args)
    except SystemExit as stop:  # the option parser exits this way after help and errors
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print(f"\ngradstable {name}: stopped", file=sys.stderr)
        return 130
