"""Connect the processes of a run before JAX is first used."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Launch:
    """One process, several started by hand, or those of a cluster; the training is the same."""

    devices: int | None = None
    """Simulate this many devices on the CPU of this process. Default: use the real devices."""
    coordinator: str | None = None
    """Address of process 0, such as localhost:8476, if processes are started by hand."""
    num_processes: int | None = None
    """The number of processes, with --coordinator."""
    process_id: int | None = None
    """The index of this process, counted from 0, with --coordinator."""
    distributed: bool = False
    """Detect the processes from the cluster: SLURM, Open MPI, Kubernetes, or TPU pods."""


def start(launch: Launch) -> None:
    """Set up JAX's devices and processes; call this before anything uses a device."""
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
