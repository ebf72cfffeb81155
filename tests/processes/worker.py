"""One process of several: ``python -m tests.processes.worker JOB.json PROCESS``, see ``launch``."""

import json
import sys
import time
from pathlib import Path
from typing import Any


def begin(job: dict[str, Any], process: int) -> None:
    """Join the JAX runtime of all processes."""
    import jax

    jax.config.update("jax_num_cpu_devices", job["devices"])
    if job["processes"] > 1:
        address = f"localhost:{job['port']}"
        jax.distributed.initialize(
            coordinator_address=address,
            coordinator_bind_address=address,
            num_processes=job["processes"],
            process_id=process,
            cluster_detection_method="deactivate",
            initialization_timeout=100,
            heartbeat_timeout_seconds=job["heartbeat"],
            shutdown_timeout_seconds=30,
        )


def train(job: dict[str, Any], process: int) -> Any:
    """Train one run after the other, see ``tests.processes.training``."""
    begin(job, process)
    from tests.processes import training

    folder = Path(job["folder"])
    runs = job["arguments"]["runs"]
    return {run["name"]: training.train(folder, training.Run(**run)) for run in runs}


def capture(job: dict[str, Any], process: int) -> Any:
    """Capture a step that was rejected, see ``tests.processes.capturing``."""
    begin(job, process)
    from tests.processes import capturing

    return capturing.main(Path(job["folder"]))


def add(job: dict[str, Any], process: int) -> int:
    """Return what tells processes apart."""
    return job["arguments"]["number"] + process


def fail(job: dict[str, Any], process: int) -> None:
    """Fail in the last process, and wait for ever in the others."""
    if process == job["processes"] - 1:
        msg = "a fault on purpose"
        raise RuntimeError(msg)
    wait(job, process)


def wait(job: dict[str, Any], process: int) -> None:
    """Never end."""
    print("waiting", flush=True)
    time.sleep(600)


TASKS = {task.__name__: task for task in (train, capture, add, fail, wait)}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    process = int(sys.argv[2])
    result = TASKS[job["task"]](job, process)
    (Path(job["folder"]) / f"result-{process}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
