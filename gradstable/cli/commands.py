"""The commands there are, and the way to them: nothing is imported but what was asked for."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import gradstable


class Command(NamedTuple):
    """One line of the table of commands.

    Attributes:
      module: where its ``main(args) -> int`` is; imported when the command is called.
      extra: the extra of this package that brings what the module imports.
      summary: what it does, in one line.
    """

    module: str
    extra: str
    summary: str


COMMANDS = {
    "demo": Command(
        module="gradstable.cli.demo.command",
        extra="demo",
        summary="train a small network through a storm of bad batches, with and without the guard",
    ),
    "report": Command(
        module="gradstable.cli.report",
        extra="report",
        summary="make a page of a recorded run, or of several side by side",
    ),
    "doctor": Command(
        module="gradstable.cli.doctor",
        extra="report",
        summary="say what ails a recorded run, and what to do about it",
    ),
    "gauntlet": Command(
        module="gradstable.gauntlet.command",
        extra="gauntlet",
        summary="send optimizers, and yours beside them, through every storm there is",
    ),
}


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
    command = COMMANDS.get(name)
    if command is None:
        print(f"gradstable: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return _call(name, command, rest)


def usage() -> str:
    """Return the help of the program itself."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
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
            "`gradstable --version` says which version this is.",
        ]
    )


def _call(name: str, command: Command, args: Sequence[str]) -> int:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gradstable"):
            raise
        print(
            f"gradstable {name} needs {error.name}, which is not installed. Get it with\n"
            f"  pip install 'gradstable[{command.extra}]'",
            file=sys.stderr,
        )
        return 1
    try:
        return module.main(args)
    except SystemExit as stop:  # the parser of options stops this way, after help and errors
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print(f"\ngradstable {name}: stopped", file=sys.stderr)
        return 130
