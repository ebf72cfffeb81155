"""Folders of captures: written as a whole or not at all, and limited in number and size."""

import contextlib
import json
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gradstable._src.capture.trees import Encoded, stored

FORMAT = 1
EVENT = "event.json"
# Leading dots: nobody takes these for captures.
_HALF = ".half"
_PROCESS = re.compile(r"-process-(\d+)$")


class Shelf:
    """The folder that a process keeps its captures in.

    Args:
      folder: the folder, which is created.
      max_events: how many captures this process keeps.
      max_bytes: how large they may be together.

    Raises:
      OSError: if it cannot be created.
    """

    def __init__(self, folder: Path, *, max_events: int, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_events, self._max_bytes = max_events, max_bytes
        self._suffix = f"-process-{jax.process_index()}" if jax.process_count() > 1 else ""
        self._cleared = False

    def put(self, name: str, event: Mapping[str, Any], trees: Mapping[str, Encoded]) -> Path:
        """Write a capture, and remove the oldest ones to make room.

        A process that dies while it writes leaves a hidden folder, which the next one removes.

        Raises:
          OSError: if it cannot be written; then nothing is left of it.
        """
        if not self._cleared:
            self._clear()
        text = json.dumps(event, indent=1, allow_nan=False)
        half = self._folder / f"{_HALF}-{socket.gethostname()}-{os.getpid()}-{name}{self._suffix}"
        shutil.rmtree(half, ignore_errors=True)
        try:
            half.mkdir()
            for part, tree in trees.items():
                with _synced(half / f"{part}.npz") as file:
                    _write_arrays(file, tree)
                with _synced(half / f"{part}.json") as file:
                    file.write(json.dumps(tree.node).encode())
            with _synced(half / EVENT) as file:
                file.write(text.encode())
            _sync_folder(half)
            # Only now: if it could not be written, the oldest ones are still there.
            self._make_room(size_of(half))
            whole = self._free(name)
            half.rename(whole)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        _sync_folder(self._folder)
        return whole

    def mine(self) -> list[Path]:
        """Return the captures of this process, the oldest first."""
        own = [path for path in captures_in(self._folder) if _suffix(path) == self._suffix]
        return sorted(own, key=lambda path: ((path / EVENT).stat().st_mtime_ns, path.name))

    def _make_room(self, nbytes: int) -> None:
        kept = [(path, size_of(path)) for path in self.mine()]
        while kept and (
            len(kept) >= self._max_events
            or sum(size for _, size in kept) + nbytes > self._max_bytes
        ):
            path, _ = kept.pop(0)
            gone = path.with_name(f"{_HALF}-{socket.gethostname()}-{os.getpid()}-{path.name}")
            path.rename(gone)  # at once, so that no half of it is left
            shutil.rmtree(gone, ignore_errors=True)

    def _free(self, name: str) -> Path:
        """Return a path that is not taken, as by a run that was started again."""
        whole, number = self._folder / f"{name}{self._suffix}", 1
        while whole.exists():
            number += 1
            whole = self._folder / f"{name}-{number}{self._suffix}"
        return whole

    def _clear(self) -> None:
        """Remove what processes of this machine have left that are dead."""
        self._cleared = True
        start = f"{_HALF}-{socket.gethostname()}-"
        for path in self._folder.glob(f"{start}*"):
            number = path.name.removeprefix(start).partition("-")[0]
            if number.isdecimal() and not _is_alive(int(number)):
                shutil.rmtree(path, ignore_errors=True)


def captures_in(folder: Path) -> list[Path]:
    """Return all captures in a folder."""
    return sorted(path.parent for path in folder.glob(f"[!.]*/{EVENT}"))


def siblings(path: Path) -> list[Path]:
    """Return the captures of the same event by all processes, this one first."""
    bare = _PROCESS.sub("", path.name)
    others = [
        other
        for other in captures_in(path.parent)
        if other != path and _PROCESS.search(other.name) and _PROCESS.sub("", other.name) == bare
    ]
    return [path, *others] if _PROCESS.search(path.name) else [path]


def size_of(path: Path) -> int:
    """Return how many bytes a capture takes."""
    return sum(file.stat().st_size for file in path.iterdir())


def read_arrays(file: Path) -> dict[int, np.ndarray]:
    """Return the arrays in a file, by number."""
    with np.load(file, allow_pickle=False) as arrays:
        return {int(name): arrays[name] for name in arrays.files}


def _suffix(path: Path) -> str:
    found = _PROCESS.search(path.name)
    return found[0] if found else ""


def _write_arrays(file: Any, tree: Encoded) -> None:
    """Write what ``numpy.savez`` does, but one array in memory at a time."""
    with zipfile.ZipFile(file, "w") as archive:
        for number, array in enumerate(tree.arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, stored(array), allow_pickle=False)


@contextlib.contextmanager
def _synced(path: Path) -> Generator[Any]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not on every system
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
