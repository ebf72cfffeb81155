"""Placement of parameters, gradients, and state on the mesh."""

from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

import gradstable as gs


class Layout(NamedTuple):
    """A mesh, and what is split over it."""

    axes: dict[str, int]
    split: tuple[str, ...]  # axes over which parameters are split, one dimension for each
    zero: str | None = None  # an axis over which only gradients and state are split further

    def mesh(self, *, abstract: bool) -> Mesh | AbstractMesh:
        """Return the mesh, with or without actual devices."""
        sizes, names = tuple(self.axes.values()), tuple(self.axes)
        kinds = (AxisType.Auto,) * len(names)
        make = AbstractMesh if abstract else jax.make_mesh
        return make(sizes, names, axis_types=kinds)


class Shardings(NamedTuple):
    """Trees of shardings like the parameters."""

    params: Any
    gradients: Any  # and the moments


def layouts(devices: int) -> dict[str, Layout]:
    """Return the layouts on this many devices, a power of two."""
    if devices < 4 or devices & (devices - 1):
        raise ValueError(f"devices must be a power of two and at least 4, got {devices}")
    rows = 1 << ((devices.bit_length() - 1) // 2)
    columns = devices // rows
    pair = {"data": rows, "fsdp": columns}
    return {
        f"fsdp {devices}": Layout({"fsdp": devices}, ("fsdp",)),
        f"data {rows} x fsdp {columns}": Layout(pair, ("fsdp",)),
        f"data {rows} (ZeRO-1) x fsdp {columns}": Layout(pair, ("fsdp",), zero="data"),
        f"fsdp {rows} x tensor {columns}": Layout(
            {"fsdp": rows, "tensor": columns}, ("fsdp", "tensor")
        ),
    }


def shardings(layout: Layout, params: Any, *, abstract: bool) -> Shardings:
    """Return the placement of parameters and gradients."""
    mesh = layout.mesh(abstract=abstract)
    of_params = None
    for axis in layout.split:
        of_params = _split(params, of_params, axis, mesh)
    of_gradients = of_params
    if layout.zero is not None:
        of_gradients = _split(params, of_params, layout.zero, mesh)
    return Shardings(of_params, of_gradients)


def _split(params: Any, placed: Any, axis: str, mesh: Mesh | AbstractMesh) -> Any:
    """Split leaves that are already placed over one more axis."""
    if placed is not None:
        params = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            params,
            placed,
        )
    return gs.sharding.spread(params, axis, mesh=mesh)


def split_leaves(placed: Any) -> int:
    """Return how many leaves are split, so that their sums have to cross devices."""
    return sum(not sharding.is_fully_replicated for sharding in jax.tree.leaves(placed))
