"""How the processes of a run find each other, before JAX is first used."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Launch:
    """One process, several by hand, or those of a cluster; the training is the same."""

    devices: int | None = None
    """Simulate so many devices on the CPU of this process. Default: take what there is."""
    coordinator: str | None = None
    """Address of process 0, as in localhost:8476, where processes are started by hand."""
    num_processes: int | None = None
    """How many processes there are, with --coordinator."""
    process_id: int | None = None
    """Which of them this is, counted from 0, with --coordinator."""
    distributed: bool = False
    """Ask the cluster who is there: SLURM, Open MPI, Kubernetes and TPU pods tell."""


def start(launch: Launch) -> None:
    """Make devices and processes known to JAX; nothing may have asked it for a device before."""
    if launch.devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", launch.devices)
    if launch.distributed:
        jax.distributed.initialize()
    elif launch.coordinator is not None:
        if launch.num_processes is None or launch.process_id is None:
            raise ValueError("--coordinator needs --num-processes and --process-id")
        jax.distributed.initialize(
            launch.coordinator, num_processes=launch.num_processes, process_id=launch.process_id
        )
