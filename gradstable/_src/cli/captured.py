"""What ``gradstable autopsy`` and ``gradstable replay`` share: a capture, and a function for it."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from gradstable._src.capture.read import Captured, read_capture
from gradstable._src.cli.options import Parser

Part: TypeAlias = Literal["params", "opt_state", "batch", "rng"]
READ, FAILED, REFUSED = 0, 1, 2
_HINT = {
    "params": "pass params= to the capture, and see that max_bytes is enough",
    "opt_state": "see that max_bytes of the capture is enough",
    "batch": "see what gs.capture says about batches that it cannot keep",
    "rng": "pass rng= to the capture",
}


_EXITS = {
    READ: "there is a report, whatever it says",
    FAILED: "the function fails",
    REFUSED: "the capture or the function cannot be found, or the options are wrong",
}


def parser_of(name: str, text: str, *, fn: str, args: str) -> Parser:
    """Return a parser with the options that both commands have.

    Args:
      name: the name of the command.
      text: what it does.
      fn: the help about the function.
      args: the help about its arguments.
    """
    parser = Parser(name, text, exits=_EXITS)
    parser.add_argument(
        "folder", type=Path, help="the folder of one step, as gs.capture has written it"
    )
    parser.add_argument("--fn", required=True, metavar="MODULE:FUNCTION", help=fn)
    parser.add_argument("--args", nargs="+", choices=get_args(Part), metavar="PART", help=args)
    return parser


class Refused(Exception):
    """What was asked for cannot be done; the message says why, and the status what to exit with."""

    def __init__(self, message: str, status: int = REFUSED) -> None:
        super().__init__(message)
        self.status = status


def run(name: str, report: Callable[[], str]) -> int:
    """Print a report, with the current folder as a place of modules; return the exit status."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        print(report())
    except Refused as error:
        print(f"gradstable {name}: {error}", file=sys.stderr)
        return error.status
    finally:
        sys.path.remove(here)
    return READ


def function(name: str) -> Callable[..., Any]:
    """Return a function by its name, ``module:attribute``.

    Raises:
      Refused: if there is none.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        msg = f"--fn must be module:function, such as train:loss_fn, got {name!r}"
        raise Refused(msg)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        msg = f"cannot import {module_name}: {type(error).__name__}: {error}"
        raise Refused(msg) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            msg = f"{module_name} has no {attribute}{hint}"
            raise Refused(msg)
        found = getattr(found, part)
    if not callable(found):
        msg = f"{name} is not a function, but of type {type(found).__name__}"
        raise Refused(msg)
    return found


def load(folder: Path) -> Captured:
    """Return a capture.

    Raises:
      Refused: if it cannot be read.
    """
    try:
        return read_capture(folder)
    except OSError as error:
        msg = f"cannot read {error.filename or folder}: {error.strerror or error}"
        raise Refused(msg) from error
    except ValueError as error:
        raise Refused(str(error)) from error


def arguments(captured: Captured, names: Sequence[Part]) -> list[Any]:
    """Return the arguments for the function.

    Raises:
      Refused: if one of them was not kept.
    """
    for name in names:
        if getattr(captured, name) is None:
            msg = f"no {name} kept in this capture: {_HINT[name]}"
            raise Refused(msg)
    return [getattr(captured, name) for name in names]


def called(name: str, names: Sequence[Part], call: Callable[[], Any]) -> Any:
    """Return what a call of the user's function returns.

    Raises:
      Refused: if it raises.
    """
    try:
        return call()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        first = (str(error).splitlines() or [""])[0]
        msg = (
            f"{name}({', '.join(names)}) failed in {where}: {type(error).__name__}: {first} "
            "(--args says which parts of the capture it takes, and in which order)"
        )
        raise Refused(msg, FAILED) from error
