"""A file with a single writer: a second one is refused, but a killed one can restart."""

import errno
import os
import stat
import weakref
from io import FileIO
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system: lines of two writers can mix, but each stays whole
    fcntl = None

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
_open: "weakref.WeakSet[FileIO]" = weakref.WeakSet()


class TakenError(ValueError):
    """Another writer has this file open."""


def open_exclusively(path: Path, *, keep: bool) -> tuple[FileIO, bool]:
    """Open a file for appending, and create its folder.

    The operating system holds the lock on the open file: it goes away with the process, however
    that ends, and a child process does not inherit it.

    Args:
      path: the file.
      keep: whether to append to the existing content; otherwise the file is emptied.

    Returns:
      The file, unbuffered, and whether it ends in the middle of a line.

    Raises:
      TakenError: if another writer has it open; it is left as it is.
      OSError: if it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab", buffering=0)
    try:
        torn = False
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            _lock(file, path)
            if keep:
                torn = _ends_torn(path)
            else:
                file.truncate(0)
    except BaseException:
        file.close()
        raise
    _open.add(file)
    return file, torn


def _lock(file: FileIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            return  # a file system without locks
        msg = (
            f"path {path} is being written by another Log, in this process or in another: close "
            "that one first, or give each its own file. In a job with several processes, log "
            "where jax.process_index() == 0, or put the index into the name"
        )
        raise TakenError(msg) from error


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) not in (b"", b"\n")


def _close_in_child() -> None:
    # A worker that outlives a killed run would keep its lock.
    for file in list(_open):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
