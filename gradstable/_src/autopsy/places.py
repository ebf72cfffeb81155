"""Where in the source an equation comes from."""

from __future__ import annotations

import functools
import linecache
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from gradstable._src.walk.walk import bare

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

    from gradstable._src.walk.walk import Place

_PACKAGE = str(Path(__file__).parents[1])
_NEVER = (_PACKAGE, str(Path(jax.__file__).parent))
_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
# JAX wraps a scope in the transformations that it went through.
_WRAPPED = re.compile(r"\w+\((.*)\)")


class Line(NamedTuple):
    """A line of source.

    Attributes:
      file: its path; empty if it is not known.
      line: its number, from 1.
      function: the name of the function that it is in.
      code: the line itself, if the file can be read.
    """

    file: str
    line: int
    function: str
    code: str


NOWHERE = Line("", 0, "", "")


def line_of(eqn: JaxprEqn, places: tuple[Place, ...] = ()) -> Line:
    """Return the line of the user's code that an equation comes from.

    It is the innermost one outside of any installed library: for a layer of Flax, the line that
    calls the layer. For a derivative, it is the line whose derivative it is.
    """
    frames = _frames(eqn)
    # JAX traces a function once: inside of one from a library, all frames outside of it are those
    # of its first call.
    while places and not _is_inside(places[-1], frames):
        *rest, place = places
        places, frames = tuple(rest), _frames(place.eqn)
    for frame in frames or _all_frames(eqn):  # the user's code may be installed, too
        text = linecache.getline(frame.file_name, frame.line_num).strip()
        function = frame.function_name.rpartition(".")[2]
        return Line(frame.file_name, frame.line_num, function, text)
    return NOWHERE


def _frames(eqn: JaxprEqn) -> list[Any]:
    """Return the frames of the user's code, the innermost first."""
    return [frame for frame in _all_frames(eqn) if not _is_library(frame.file_name)]


def _all_frames(eqn: JaxprEqn) -> list[Any]:
    traceback = eqn.source_info.traceback
    frames = traceback.frames if traceback is not None else []
    return [frame for frame in frames if not frame.file_name.startswith(_NEVER)]


def _is_inside(place: Place, frames: Sequence[Any]) -> bool:
    """Whether the innermost of some frames is inside of the function that was called."""
    written = getattr(bare(place.program).debug_info, "func_filename", None)
    if frames and written is not None and not _is_library(written):
        return True
    outer = [_key(frame) for frame in _frames(place.eqn)]
    inner = [_key(frame) for frame in frames]
    return len(inner) > len(outer) and inner[len(inner) - len(outer) :] == outer


def _key(frame: Any) -> tuple[str, int]:
    return frame.file_name, frame.line_num


def scope_of(eqn: JaxprEqn, places: tuple[Place, ...]) -> str:
    """Return the name scopes around an equation, without those of transformations."""
    stacks = [str(place.eqn.source_info.name_stack) for place in places]
    parts = "/".join([*stacks, str(eqn.source_info.name_stack)]).split("/")
    names: list[str] = []
    for part in parts:
        name = part
        while match := _WRAPPED.fullmatch(name):
            name = match[1]
        if name and (not names or names[-1] != name):
            names.append(name)
    return "/".join(names)


@functools.cache
def _is_library(file: str) -> bool:
    return file.startswith((*_LIBRARIES, _PACKAGE))
