"""Where a state lies: moments with their parameters, all else everywhere."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs
from tests.frames import representatives
from tests.registry import Case

SHAPES = {
    "kernel": jax.ShapeDtypeStruct((64, 128), jnp.float32),
    "bias": jax.ShapeDtypeStruct((128,), jnp.float32),
    "scale": jax.ShapeDtypeStruct((), jnp.float32),
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def ones(mesh: Mesh, *, split: bool = True) -> Any:
    """Return parameters on a mesh."""
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), SHAPES)
    whole = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    return jax.device_put(params, gs.sharding.spread(params, "fsdp", mesh=mesh) if split else whole)


def held(tree: Any) -> int:
    """Return the bytes that the first device really has."""
    first = jax.devices()[0]
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "addressable_shards"))
    shards = (shard for leaf in leaves for shard in leaf.addressable_shards)
    return sum(shard.data.nbytes for shard in shards if shard.device == first)


@pytest.mark.parametrize("case", representatives(), ids=lambda case: case.name)
def test_leaves_of_a_parameters_shape_lie_where_it_does(case: Case, mesh: Mesh) -> None:
    params = ones(mesh)
    shardings = gs.sharding.state_shardings(case.tx, params)
    shapes = jax.eval_shape(case.tx.init, SHAPES)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
        split = leaf.shape[-2:] == (64, 128)  # a stack of copies is split as each of them
        stacked = (None,) * (leaf.ndim - 2)
        assert sharding.spec == (P(*stacked, None, "fsdp") if split else P())


@pytest.mark.parametrize(
    "tx",
    [gs.guard(optax.adamw(1e-3)), gs.muon(1e-3), gs.guard(optax.adafactor(1e-3))],
    ids=["adamw", "muon", "adafactor"],
)
def test_state_is_made_and_stays_where_it_belongs(
    tx: optax.GradientTransformation, mesh: Mesh
) -> None:
    params = ones(mesh)
    shardings = gs.sharding.state_shardings(tx, params)
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    assert held(state) == gs.sharding.bytes_per_device(state)
    _, after = jax.jit(tx.update)(params, state, params)
    for leaf, sharding in zip(jax.tree.leaves(after), jax.tree.leaves(shardings), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_masked_nodes_stay_what_they_are(mesh: Mesh) -> None:
    tx = optax.masked(optax.adam(1e-3), {"kernel": True, "bias": False, "scale": False})
    shardings = gs.sharding.state_shardings(tx, ones(mesh))
    assert jax.tree.structure(shardings) == jax.tree.structure(jax.eval_shape(tx.init, SHAPES))


def test_zero_one_splits_the_state_alone(mesh: Mesh) -> None:
    """Moments take an eighth of the bytes, and the parameters that come out are the same."""
    tx = gs.guard(optax.adamw(0.1))
    params = ones(mesh, split=False)
    whole = jax.tree.map(lambda leaf: leaf.sharding, params)
    split = gs.sharding.spread(params, ("data", "fsdp"), min_size=1)
    of_state = gs.sharding.state_shardings(tx, params, shardings=split)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    step = jax.jit(lambda p, s: tx.update(p, s, p), out_shardings=(whole, of_state))
    updates, after = step(params, state)

    moments = 2 * 4 * (64 * 128 + 128)
    rest = gs.sharding.bytes_per_device(state) - moments // 8
    assert held(state) == gs.sharding.bytes_per_device(state)
    assert rest < 1500
    alone = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), SHAPES)
    wanted, _ = jax.jit(lambda p: tx.update(p, tx.init(p), p))(alone)
    for got, should in zip(jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, should, rtol=1e-6)
    assert held(after) == held(state)


def test_bytes_fall_with_the_devices(mesh: Mesh) -> None:
    tx = gs.stable_adamw(1e-3)
    state = jax.eval_shape(tx.init, SHAPES)
    sizes = {}
    for names in ((), ("fsdp",), ("data", "fsdp")):
        split = gs.sharding.spread(SHAPES, names, mesh=mesh, min_size=1)
        shardings = gs.sharding.state_shardings(tx, SHAPES, shardings=split)
        sizes[names] = gs.sharding.bytes_per_device(state, shardings=shardings)
    assert sizes[()] == gs.sharding.bytes_per_device(state)
    moments = 2 * 4 * (64 * 128 + 128)
    assert sizes[()] - sizes[("fsdp",)] == moments * 3 // 4
    assert sizes[()] - sizes[("data", "fsdp")] == moments * 7 // 8


@pytest.mark.parametrize(
    ("shape", "spec", "wanted"),
    [
        ((64, 128), P(), P(None, "fsdp")),  # the longest
        ((128, 128), P(), P("fsdp", None)),  # of equals the first
        ((6, 8), P(), P(None, "fsdp")),  # that divides
        ((6, 7), P(), P()),
        ((), P(), P()),
        ((64, 128), P(None, "data"), P("fsdp", "data")),  # both have 64 left: the first
        ((8, 128), P(None, "data"), P(None, ("data", "fsdp"))),
        ((64, 128), P("fsdp"), P("fsdp")),  # is split by it already
    ],
)
def test_spread_takes_the_longest_dimension_that_divides(
    shape: tuple[int, ...], spec: P, wanted: P, mesh: Mesh
) -> None:
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    assert gs.sharding.spread({"w": leaf}, "fsdp", min_size=1)["w"].spec == wanted


def test_small_leaves_stay_whole(mesh: Mesh) -> None:
    shardings = gs.sharding.spread(SHAPES, "fsdp", mesh=mesh)
    assert {name for name, each in shardings.items() if each.spec != P()} == {"kernel"}


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (
            lambda mesh: gs.sharding.spread(SHAPES, "model", mesh=mesh),
            ValueError,
            "axis_name must be one of the mesh's axes ('data', 'fsdp'), got 'model'",
        ),
        (
            lambda mesh: gs.sharding.spread(SHAPES, "fsdp"),
            ValueError,
            "params['bias'] is not on a mesh: pass mesh",
        ),
        (
            lambda mesh: gs.sharding.spread(SHAPES, "fsdp", mesh=mesh, min_size=0),
            ValueError,
            "min_size must be a number >= 1",
        ),
        (
            lambda mesh: gs.sharding.state_shardings(optax.sgd, SHAPES),
            TypeError,
            "call it first, as in sgd(...)",
        ),
        (
            lambda mesh: gs.sharding.state_shardings(optax.sgd(0.1), {"w": jnp.ones(3)}),
            TypeError,
            "params['w'] must have a jax.NamedSharding, got SingleDeviceSharding",
        ),
        (
            lambda mesh: gs.sharding.state_shardings(optax.sgd(0.1), SHAPES),
            TypeError,
            "params['bias'] must have a jax.NamedSharding, got None",
        ),
        (
            lambda mesh: gs.sharding.state_shardings(optax.sgd(0.1), {}),
            ValueError,
            "params must have at least one leaf",
        ),
    ],
)
def test_what_cannot_be_placed_is_told(
    call: Any, error: type[Exception], told: str, mesh: Mesh
) -> None:
    with pytest.raises(error, match=re.escape(told)):
        call(mesh)


def test_two_meshes_are_refused(mesh: Mesh) -> None:
    other = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    leaf = jnp.ones((8, 8))
    params = {
        "a": jax.device_put(leaf, NamedSharding(mesh, P())),
        "b": jax.device_put(leaf, NamedSharding(other, P())),
    }
    with pytest.raises(ValueError, match=re.escape("params['b'] must be on the same mesh as all")):
        gs.sharding.state_shardings(optax.sgd(0.1), params)
