"""Run files named on the command line."""

import errno
import os
from pathlib import Path

from gradstable._src.telemetry.run import Run, read_run


def read(path: Path) -> Run:
    """Read a run.

    Raises:
      OSError: if the file does not exist or cannot be opened.
      ValueError: if it is not a record of a run; the message names the file.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return read_run(path)
