"""Placement: parameters and state split over devices, rows of a batch with their device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import gradstable as gs

AXES = ("data", "fsdp")


class Placement(NamedTuple):
    """All shardings; ``params`` and ``opt_state`` are trees of them."""

    everywhere: NamedSharding
    rows: NamedSharding
    params: Any
    opt_state: Any


def make_mesh(fsdp: int | None) -> Mesh:
    """Return a mesh of all devices: copies of the parameters × parts of them.

    The axes are ``Auto``: the compiler infers the rest from the shardings of parameters and rows.
    With ``Explicit`` axes, JAX's default, each call of a layer with an ambiguous sharding needs
    ``out_sharding``, starting with Flax's embedding, and models have to be rewritten.
    """
    devices = jax.device_count()
    parts = devices if fsdp is None else fsdp
    if parts < 1 or devices % parts:
        raise ValueError(f"--fsdp must divide the {devices} devices, got {parts}")
    return jax.make_mesh((devices // parts, parts), AXES, axis_types=(AxisType.Auto,) * 2)


def everywhere(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def place(tx: optax.GradientTransformation, params: Any, *, mesh: Mesh | AbstractMesh) -> Placement:
    """Return the shardings of parameters and state, from the shapes of the parameters."""
    split = gs.sharding.spread(params, "fsdp", mesh=mesh)
    return Placement(
        everywhere=everywhere(mesh),
        rows=NamedSharding(mesh, PartitionSpec(AXES)),  # no two devices read the same
        params=split,
        opt_state=gs.sharding.state_shardings(tx, params, shardings=split),
    )


def init(
    make_params: Callable[[], Any], tx: optax.GradientTransformation, *, placed: Placement
) -> tuple[Any, Any]:
    """Return the initial parameters and state, split from the start."""
    params = jax.jit(make_params, out_shardings=placed.params)()
    return params, jax.jit(tx.init, out_shardings=placed.opt_state)(params)


def globally(batch: Any, *, placed: Placement) -> Any:
    """Combine the rows of each process into arrays over all devices; nothing is sent."""
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(placed.rows, rows), batch
    )
