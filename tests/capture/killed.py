"""Processes that are killed while they write a capture: ``python -m tests.capture.killed FOLDER``.

One child after the other writes a second capture and kills itself, at its first access to a file,
at its second, and so on, until one comes to the end. Each has its own folder, named by that number.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gradstable._src.capture import folders
from gradstable._src.capture.trees import encode

MOST = 60


def trees(value: float) -> dict[str, Any]:
    return {part: encode({"x": np.full((64, 64), value)}) for part in ("batch", "params")}


def event(step: int) -> dict[str, Any]:
    return {
        "format": folders.FORMAT, "step": step, "kind": "rejected", "reason": "a test",
        "numbers": {}, "exact": True, "later": 0, "left_out": [], "parts": ["batch", "params"],
    }  # fmt: skip


def arm(folder: Path, point: int) -> None:
    """Die at the access with this number; every write counts, in its middle."""
    seen = 0

    def die_at_last() -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            first = arguments[0]
            if isinstance(first, (str, bytes, Path)) and str(folder) in os.fsdecode(first):
                die_at_last()

    write = np.lib.format.write_array
    sys.addaudithook(hook)

    def watched(file: Any, array: np.ndarray, **options: Any) -> None:
        write(_Counting(file, die_at_last), array, **options)

    np.lib.format.write_array = watched


class _Counting:
    """A file of which every write counts."""

    def __init__(self, file: Any, count: Any) -> None:
        self._file, self._count = file, count

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        written = self._file.write(data[: len(data) // 2])
        self._count()
        return written + self._file.write(data[len(data) // 2 :])


def main(root: Path) -> None:
    for point in range(1, MOST):
        folder = root / str(point)
        child = os.fork()
        if child == 0:
            # With room for one: the first makes way for the second.
            shelf = folders.Shelf(folder, max_events=1, max_bytes=2**20)
            shelf.put("step-00000001-rejected", event(1), trees(1.0))
            arm(folder, point)
            shelf.put("step-00000002-rejected", event(2), trees(2.0))
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            print(point)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
