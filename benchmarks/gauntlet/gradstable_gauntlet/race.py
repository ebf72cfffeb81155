"""Run all cells, several at a time in separate processes; finished ones are not run again."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import jax

from gradstable_gauntlet.cell import Plan, run_cell
from gradstable_gauntlet.entries import choose, entries, storms_for
from gradstable_gauntlet.results import Cell, cell_from_json, cell_to_json

# One thread per process: the arrays are small, and two processes do twice the work.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Job(NamedTuple):
    """One cell to run: only names, so that it can be sent to another process."""

    task: str
    contestant: str
    storms: tuple[str, ...]
    files: tuple[Path, ...]
    plan: Plan

    def fingerprint(self) -> str:
        """Return the hash that a finished cell must share to be reused for this job."""
        versions = [importlib.metadata.version(name) for name in ("jax", "optax", "gradstable")]
        brought = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        whole = json.dumps([self._replace(files=()), versions, brought], default=str)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


def run_jobs(jobs: Sequence[Job], folder: Path, *, processes: int) -> Iterator[tuple[Job, Cell]]:
    """Yield every job with its cell as they finish; finished cells are read from ``folder``."""
    waiting: list[Job] = []
    for job in jobs:
        cell = _finished(job, folder)
        if cell is None:
            waiting.append(job)
        else:
            yield job, cell
    yield from _run(waiting, folder, processes)


def run_job(job: Job) -> Cell:
    """Run one cell in this process."""
    known = entries(job.files)
    storms = storms_for(job.task, choose("storm", job.storms, known.storms))
    contestant, task = known.contestants[job.contestant], known.tasks[job.task]
    try:
        return run_cell((job.task, job.contestant), task, contestant, storms, job.plan)
    finally:
        jax.clear_caches()  # a process runs hundreds of cells and must not keep their programs


def _run(jobs: Sequence[Job], folder: Path, processes: int) -> Iterator[tuple[Job, Cell]]:
    if processes <= 1:
        for job in jobs:
            yield job, _keep(job, run_job(job), folder)
        return
    old = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = (
        f"{old} {_ONE_THREAD}".strip()
    )  # for the child processes: here, JAX is already loaded
    # Not with max_tasks_per_child, which hangs in Python 3.11.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        running = {pool.submit(run_job, job): job for job in jobs}
        for future in as_completed(running):
            job = running[future]
            yield job, _keep(job, future.result(), folder)
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ["XLA_FLAGS"] = old


def _path(job: Job, folder: Path) -> Path:
    return folder / f"{job.task}--{job.contestant}.json".replace("/", "_").replace(" ", "_")


def _finished(job: Job, folder: Path) -> Cell | None:
    path = _path(job, folder)
    if not path.exists():
        return None
    said = json.loads(path.read_text())
    return cell_from_json(said["cell"]) if said["fingerprint"] == job.fingerprint() else None


def _keep(job: Job, cell: Cell, folder: Path) -> Cell:
    """Write a cell completely or not at all, so that a half-written one is never read."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(job, folder)
    half = path.with_suffix(".half")
    half.write_text(json.dumps({"fingerprint": job.fingerprint(), "cell": cell_to_json(cell)}))
    half.replace(path)
    return cell
