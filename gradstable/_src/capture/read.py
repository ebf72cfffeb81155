"""Read back what was captured."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradstable._src.capture.folders import EVENT, FORMAT, captures_in, read_arrays, siblings
from gradstable._src.capture.trees import decode

_PARTS = ("batch", "rng", "params", "opt_state")
_SHOWN = 4


class Captured(NamedTuple):
    """A bad step, as ``read_capture`` returns it; ``str()`` of it says what is known.

    Attributes:
      step: its number.
      kind: ``"rejected"``, ``"clipped"``, or ``"diverging"``.
      reason: why, as a clause.
      numbers: what was measured in it, such as ``loss`` and ``grad_norm``.
      exact: whether parameters and optimizer state are those that the step began with.
      later: after how many more steps they were read.
      batch: its batch; if several belong to it, as with accumulation inside a step, a list.
      rng: its random key; ``None`` if none was passed.
      params: the parameters; ``None`` if they were not kept.
      opt_state: the state of the optimizer; ``None`` if it was not kept.
      left_out: what could not be kept, and why.
      info: everything else: versions, device, time, ``config``, the report of ``gs.explain``.
    """

    step: int
    kind: str
    reason: str
    numbers: Mapping[str, float]
    exact: bool
    later: int
    batch: Any
    rng: Any
    params: Any
    opt_state: Any
    left_out: tuple[str, ...]
    info: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [f"Step {self.step}, {self.kind}: {self.reason}."]
        if self.numbers:
            known = (f"{name} {value:.6g}" for name, value in self.numbers.items())
            lines.append(f"{', '.join(known)}.")
        if self.params is None:
            lines.append("The parameters were not kept.")
        elif self.exact:
            lines.append("Parameters and optimizer state are those that it began with.")
        else:
            steps = "1 step" if self.later == 1 else f"{self.later} steps"
            when = f"{steps} later" if self.later else "after it"
            lines.append(f"Parameters and optimizer state are those {when}.")
        lines += [f"Not kept: {what}." for what in self.left_out]
        return "\n".join(lines)


def read_capture(folder: str | os.PathLike[str]) -> Captured:
    """Read a bad step that ``gs.capture`` has written.

    Nothing in the folder is executed, so it can be somebody else's. Arrays come back with the same
    bits, in dictionaries, lists, and tuples. Named tuples, as in the state of an optimizer, come
    back as their class if its module has been imported, and else as one with the same fields; other
    nodes of a tree, such as those of Flax, as dictionaries. Of several processes, the parts of
    arrays are put together if the folders of all of them are there; else, the part of this one
    comes back.

    Args:
      folder: the folder of one step.

    Returns:
      A ``Captured``. Print it.

    Raises:
      OSError: if the folder is not there.
      ValueError: if it is not a capture, or has several.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradstable as gs
      >>> tx = gs.guard(optax.sgd(0.1))
      >>> _, state = tx.update(jnp.array([jnp.nan]), tx.init(jnp.ones(1)))
      >>> with gs.capture(tempfile.mkdtemp()) as capture:
      ...     capture(state, {"text": ["a", "b"]}, params=jnp.ones(1), step=7)
      >>> found = gs.read_capture(capture.folders[0])
      >>> found.step, found.exact, found.batch
      (7, True, {'text': ['a', 'b']})
    """
    path = Path(folder)
    events = {other.name: _event(other) for other in siblings(_one(path))}
    own = events[path.name]
    try:
        trees = {part: _tree(part, path.parent, events) for part in _PARTS if part in own["parts"]}
        return Captured(
            step=int(own["step"]),
            kind=str(own["kind"]),
            reason=str(own["reason"]),
            numbers={str(name): float(value) for name, value in own["numbers"].items()},
            exact=bool(own["exact"]),
            later=int(own["later"]),
            **{part: trees.get(part) for part in _PARTS},
            left_out=tuple(map(str, own["left_out"])),
            info={name: value for name, value in own.items() if name not in _KNOWN},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path} is not a capture that can be read: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


_KNOWN = {"parts", "format", *Captured._fields}


def _one(path: Path) -> Path:
    """Return the folder of one step, or raise."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if (path / EVENT).is_file():
        return path
    inside = captures_in(path) if path.is_dir() else []
    if not inside:
        msg = f"{path} is not a capture: pass a folder that gs.capture has written, with {EVENT}"
        raise ValueError(msg)
    names = ", ".join(one.name for one in inside[:_SHOWN])
    more = ", ..." if len(inside) > _SHOWN else ""
    msg = f"{path} has {len(inside)} captures, so pass the folder of one: {names}{more}"
    raise ValueError(msg)


def _event(path: Path) -> dict[str, Any]:
    try:
        event = json.loads((path / EVENT).read_text(encoding="utf-8"))
        number = event["format"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path / EVENT} is not the description of a capture: {error}"
        raise ValueError(msg) from None
    if number != FORMAT:
        msg = f"{path} has format {number}, and this version of gradstable reads format {FORMAT}"
        raise ValueError(msg)
    return event


def _tree(part: str, folder: Path, events: Mapping[str, Any]) -> Any:
    """Return one tree, with the parts of its arrays that other processes have."""
    files: dict[str, dict[int, np.ndarray]] = {}
    node: Any = None
    for name, event in events.items():
        if part in event["parts"]:
            text = (folder / name / f"{part}.json").read_text(encoding="utf-8")
            theirs = _in_file(json.loads(text), name)
            node = theirs if node is None else _with_parts(node, theirs)

    def read(place: tuple[str, int]) -> np.ndarray:
        name, number = place
        if name not in files:
            files[name] = read_arrays(folder / name / f"{part}.npz")
        return files[name][number]

    return decode(node, read)


def _in_file(node: Any, name: str) -> Any:
    """Return a structure whose arrays say in which folder they are."""
    if isinstance(node, list):
        return [_in_file(child, name) for child in node]
    if not isinstance(node, dict):
        return node
    inside = {key: _in_file(child, name) for key, child in node.items()}
    return {**inside, "file": name} if "n" in node else inside


def _with_parts(node: Any, other: Any) -> Any:
    """Return a structure with the parts of another process, which has the same one."""
    if isinstance(node, list) and isinstance(other, list) and len(node) == len(other):
        return [_with_parts(one, two) for one, two in zip(node, other, strict=True)]
    if not isinstance(node, dict) or not isinstance(other, dict):
        return node
    if "parts" in node:
        return {**node, "parts": [*node["parts"], *other.get("parts", ())]}
    return {key: _with_parts(child, other.get(key)) for key, child in node.items()}
