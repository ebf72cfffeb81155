"""What the guard sends between devices: a few numbers at once, and no part of a leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs
from benchmarks.collectives import read_collectives

Make = Callable[[], optax.GradientTransformation]

# Large leaves, and small ones of equal shape that are split over other dimensions.
LAYER = {
    "query": ((256, 256), P("x", None)),
    "out": ((256, 256), P(None, "x")),
    "up": ((64, 64), P("x", None)),
    "down": ((64, 64), P(None, "x")),
    "bias": ((64,), P("x")),
    "scale": ((64,), P()),
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


def layers(depth: int) -> tuple[Any, Any]:
    """Return shapes and specs of a model."""
    shape = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, (shape, _) in LAYER.items()}
    spec = {name: spec for name, (_, spec) in LAYER.items()}
    return {f"layer_{i}": shape for i in range(depth)}, {f"layer_{i}": spec for i in range(depth)}


def usual(function: Callable[..., Any], *args: Any, **options: Any) -> list[tuple[str, int]]:
    """Return kind and bytes of all collectives on the path of a sound step."""
    compiled = jax.jit(function, **options).lower(*args).compile()
    return [tuple(each) for each in read_collectives(compiled.as_text()).usual]


def under_jit(tx: optax.GradientTransformation, depth: int, mesh: Mesh) -> list[tuple[str, int]]:
    shapes, specs = layers(depth)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    of_state = gs.sharding.state_shardings(tx, shapes, shardings=shardings)
    put = lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s)  # noqa: E731
    params = jax.tree.map(put, shapes, shardings)
    state = jax.tree.map(put, jax.eval_shape(tx.init, shapes), of_state)
    return usual(tx.update, params, state, params, out_shardings=(shardings, of_state))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("depth", [1, 4])
def test_guard_sends_one_number_a_leaf_at_once(kind: AxisType, depth: int) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        assert under_jit(optax.adamw(1e-3), depth, mesh) == []
        sent = under_jit(gs.guard(optax.adamw(1e-3)), depth, mesh)
    [(how, size)] = sent
    assert how == "all-reduce"
    # Leaves that are whole need none, and small ones may share an array with those that do.
    assert 4 * 5 * depth <= size <= 4 * 6 * depth


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_moments_in_two_bytes_are_split_like_parameters_and_never_sent(kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    tx, (shapes, specs) = gs.adamw_8bit(1e-3), layers(1)
    with jax.set_mesh(mesh):
        assert under_jit(tx, 1, mesh) == under_jit(gs.adamw(1e-3), 1, mesh)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    state = gs.sharding.state_shardings(tx, shapes, shardings=shardings)
    assert state.wrapped_state[0].moment_codes == shardings


@pytest.mark.parametrize("depth", [1, 4])
def test_stable_adamw_sends_three_times_whatever_the_depth(depth: int, mesh: Mesh) -> None:
    sent = under_jit(gs.stable_adamw(1e-3), depth, mesh)
    assert {how for how, _ in sent} == {"all-reduce"}
    assert len(sent) <= 3
    assert sum(size for _, size in sent) <= 3 * 4 * 6 * depth


@pytest.mark.parametrize(
    "spec", [P("x"), P(None, "x"), P(("x", "y")), P("y", "x")], ids=lambda spec: str(tuple(spec))
)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_the_rare_way_of_the_norm_moves_no_part_of_a_leaf(kind: AxisType, spec: P) -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    of_leaf = NamedSharding(mesh, spec)
    tree = {"w": jax.ShapeDtypeStruct((512, 1024), jnp.float32, sharding=of_leaf)}
    with jax.set_mesh(mesh):
        compiled = jax.jit(gs.global_norm).lower(tree).compile()
    paths, plan = read_collectives(compiled.as_text()), compiled.memory_analysis()
    assert all(each.kind == "all-reduce" and each.bytes == 4 for each in paths.usual + paths.rare)
    assert paths.rare
    assert plan is not None
    assert plan.temp_size_in_bytes <= 0.02 * 4 * 512 * 1024 / 4


def test_guard_sends_once_inside_shard_map(mesh: Mesh) -> None:
    shapes, specs = layers(3)
    tx = gs.guard(optax.sgd(0.1), axis_name=specs)
    state = jax.eval_shape(tx.init, shapes)
    whole = jax.tree.map(lambda _: P(), state)
    step = jax.shard_map(tx.update, mesh=mesh, in_specs=(specs, whole), out_specs=(specs, whole))
    assert usual(step, shapes, state) == [("all-reduce", 4 * 5 * 3)]


def test_norms_of_units_are_sent_once_more(mesh: Mesh) -> None:
    shapes, specs = layers(3)
    tx = gs.clipping.clip_by(gs.rules.block_norm(1.0, units="output"), axis_name=specs)
    state = jax.eval_shape(tx.init, shapes)
    whole = jax.tree.map(lambda _: P(), state)
    step = jax.shard_map(tx.update, mesh=mesh, in_specs=(specs, whole), out_specs=(specs, whole))
    columns = 256 + 256 + 64 + 64 + 1  # a vector is one unit
    assert sorted(usual(step, shapes, state)) == [
        ("all-reduce", 4 * 5 * 3),
        ("all-reduce", 4 * columns * 3),
    ]


def test_what_moves_leaves_is_seen(mesh: Mesh) -> None:
    """A check of the checks: to sort what is split, all of it has to be in one place."""
    sort = optax.stateless(lambda g, _: jax.tree.map(lambda leaf: jnp.sort(leaf, axis=0), g))
    sent = under_jit(sort, 1, mesh)
    assert {how for how, _ in sent} & {"all-gather", "all-to-all", "collective-permute"}
