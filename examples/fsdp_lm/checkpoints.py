"""Save and resume a run, also on a different number of devices or processes."""

from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from examples.fsdp_lm.placement import Placement


class Run(NamedTuple):
    """The state of a run after some step."""

    step: int
    params: Any
    opt_state: Any


def open_checkpoints(workdir: Path) -> ocp.training.Checkpointer:
    """Return a checkpointer, a context manager, that keeps the last two checkpoints."""
    # If several devices hold a whole leaf, each would write a slice of it, which compiles one more
    # program: worth it only for large leaves.
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
    kept: Any = ocp.training.preservation_policies.LatestN(2)
    return ocp.training.Checkpointer(
        str(workdir.absolute() / "checkpoints"),
        context=context,
        preservation_policy=kept,
    )


def save(checkpointer: ocp.training.Checkpointer, run: Run, batches: grain.DatasetIterator) -> None:
    """Write a checkpoint; all processes call this, and each writes the parts it holds."""
    checkpointer.save(
        run.step,
        {"params": run.params, "opt_state": run.opt_state, "data": batches.get_state()},
        custom_metadata=gs.checkpoints.state_schema(run.opt_state),
    )


def load(
    checkpointer: ocp.training.Checkpointer,
    params: Any,
    opt_state: Any,
    *,
    placed: Placement,
    batches: grain.DatasetIterator,
) -> Run:
    """Return the last saved run, each leaf where it belongs.

    The shapes of parameters and state specify what is expected. The data position is the same for
    all processes, and is set in ``batches``.
    """
    latest = checkpointer.latest
    if latest is None:
        raise ValueError("there is no checkpoint")
    schema: Any = checkpointer.metadata(latest).custom_metadata
    gs.checkpoints.check_schema(opt_state, schema)
    target = {
        "params": _target(params, placed.params),
        "opt_state": _target(opt_state, placed.opt_state),
        "data": batches.get_state(),
    }
    saved = checkpointer.load(latest, target)
    batches.set_state(saved["data"])
    return Run(latest.step, saved["params"], saved["opt_state"])


def _target(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
