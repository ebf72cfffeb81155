"""Start a program as several processes that are one JAX runtime, as a scheduler does.

``python -m tests.processes.worker`` is what runs in each of them. What it returns comes back
through a file, what it prints is shown if any process fails, and none outlives its launch.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests import quick

ROOT = Path(__file__).parents[2]
# Compiling is most of what a process does here, and speed is none of what is tried.
QUICK = (*quick.QUICK, "--xla_llvm_disable_expensive_passes=true")
# How long a process may be silent until the others give it up, in seconds: many, since a busy
# machine is no dead one; few where the death of a process is what is tried.
PATIENT, IMPATIENT = 100, 10
_POLL = 0.05
# What would make a process take itself for one of another job.
_FOREIGN = ("JAX_", "SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "MEGASCALE_")


class ProcessFailed(AssertionError):
    """Processes ended as they should not have, or not at all; the message has what they printed."""


class Shape(NamedTuple):
    """How many processes, and how many simulated devices each of them has."""

    processes: int
    devices: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.devices}"


class Launch:
    """Processes that run, or have ended."""

    def __init__(self, folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._folder = folder
        self._processes = processes

    def results(self, *, timeout: float = 150.0) -> list[Any]:
        """Return what each process returned; if one fails, end the others and show all output."""
        codes = self._wait(timeout, until_failure=True)
        if any(code != 0 for code in codes):
            self.end()
            msg = f"exit codes {codes} (None: had to be ended)\n{self.output()}"
            raise ProcessFailed(msg)
        return [
            json.loads((self._folder / f"result-{process}.json").read_text())
            for process in range(len(codes))
        ]

    def codes(self, *, timeout: float = 150.0) -> list[int]:
        """Return how each process ended, where some are to die: all must end by themselves."""
        codes = self._wait(timeout, until_failure=False)
        ended = [code for code in codes if code is not None]
        if len(ended) < len(codes):
            self.end()
            msg = f"still running after {timeout} s: exit codes {codes}\n{self.output()}"
            raise ProcessFailed(msg)
        return ended

    def output(self) -> str:
        """Return the end of what each process has printed."""
        return "\n".join(
            f"--- process {process}\n"
            + (self._folder / f"output-{process}.txt").read_text(errors="replace")[-6000:]
            for process in range(len(self._processes))
        )

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _wait(self, timeout: float, *, until_failure: bool) -> list[int | None]:
        deadline = time.monotonic() + timeout
        while True:
            codes = [process.poll() for process in self._processes]
            failed = until_failure and any(codes)
            if None not in codes or failed or time.monotonic() > deadline:
                return codes
            time.sleep(_POLL)


@contextmanager
def launch(
    folder: Path,
    task: str,
    shape: Shape,
    *,
    arguments: Mapping[str, Any] | None = None,
    heartbeat: int = PATIENT,
    cache: Path | None = None,
) -> Iterator[Launch]:
    """Start a task of ``tests.processes.worker`` in all processes, and end what is left of it.

    Args:
      folder: a new one, for output and results.
      task: the name of the task.
      shape: how many processes, and how many devices each has.
      arguments: what the task is given, from JSON.
      heartbeat: seconds of silence after which a process counts as dead.
      cache: a folder for what has been compiled, for launches that compile the same.
    """
    folder.mkdir(parents=True)
    with reserved_port() as port:
        job = {
            "folder": str(folder),
            "task": task,
            "processes": shape.processes,
            "devices": shape.devices,
            "port": port,
            "heartbeat": heartbeat,
            "arguments": dict(arguments or {}),
        }
        file = folder / "job.json"
        file.write_text(json.dumps(job))
        started: list[subprocess.Popen[bytes]] = []
        launched = Launch(folder, started)
        try:
            for process in range(shape.processes):
                started.append(_start(folder, file, process, cache))
            yield launched
        finally:
            launched.end()


def _start(folder: Path, job: Path, process: int, cache: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.processes.worker", str(job), str(process)]
    with (folder / f"output-{process}.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(os.environ, cache=cache),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def environment(parent: Mapping[str, str], *, cache: Path | None = None) -> dict[str, str]:
    """Return the environment of a worker: that of its parent without its devices and its job."""
    kept = {
        name: value
        for name, value in parent.items()
        if not name.startswith(_FOREIGN) and "_proxy" not in name.lower()
    }
    flags = [
        flag
        for flag in parent.get("XLA_FLAGS", "").split()
        if not flag.startswith("--xla_force_host_platform_device_count")
    ]
    kept["XLA_FLAGS"] = " ".join([*flags, *QUICK])
    kept["JAX_PLATFORMS"] = "cpu"
    if cache is not None:
        kept["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        kept["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), parent.get("PYTHONPATH")]))
    return kept


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that no other program is given meanwhile.

    The socket stays bound but never listens, and the coordinator shares it, so that two suites on
    one machine cannot be given the same one.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("localhost", 0))
        yield reserved.getsockname()[1]
