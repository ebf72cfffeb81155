"""A walk through ``shard_map`` on 8 devices gives what ``jit`` gives, and shows what is inside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from gradstable._src.walk.walk import walk
from tests.walk import test_walk

MESH = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
Program = Callable[[jax.Array], Any]


class Watch(test_walk.Watch):
    """The same, where the passes of a loop have a first axis for the devices."""

    def slice(self, whole: Any, part: Any, index: int) -> None:
        np.testing.assert_array_equal(whole[:, index], part)

    def stack(self, parts: Any, whole: Any) -> None:
        np.testing.assert_array_equal(jnp.stack(parts, axis=1), whole)


def mapped(body: Program, out: Any = None, **options: Any) -> Program:
    both = P("data", "model")
    return jax.shard_map(body, mesh=MESH, in_specs=both, out_specs=out or both, **options)


def collectives(x: jax.Array) -> jax.Array:
    total = jax.lax.psum(x, ("data", "model")) + jax.lax.axis_index("model")
    rows = jax.lax.all_gather(x, "data", axis=0, tiled=True)
    moved = jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)])
    part = jax.lax.psum_scatter(rows, "data", tiled=True)
    return jnp.sin(total + moved) * part - jax.lax.pmax(x, "data")


def loops(x: jax.Array) -> jax.Array:
    def layer(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(h * row) + jax.lax.axis_index("data")
        return h, jax.lax.psum(h, "model").sum()

    h, sums = jax.lax.scan(layer, x, x, reverse=True)
    (h, _) = jax.lax.fori_loop(0, 3, lambda i, c: (c[0] * 1.5 + i, c[1]), (h, x))
    nothing = jax.lax.scan(layer, x, x[:0])[1].sum()
    return jax.nn.relu(h) + sums.sum() + nothing


def other_branches(x: jax.Array) -> jax.Array:
    x = jax.lax.cond(jax.lax.axis_index("data") > 1, jnp.sin, jnp.cos, x)
    goes_on: Any = lambda y: jnp.sum(y) < 100.0  # noqa: E731
    return jax.lax.while_loop(goes_on, lambda y: 2.0 * y + 1.0, x)


def same_branch(x: jax.Array) -> jax.Array:
    return jax.lax.cond(jax.lax.axis_size("data") > 1, jnp.sin, jnp.cos, x)


def in_a_scan(x: jax.Array) -> jax.Array:
    inner = mapped(lambda h: jnp.tanh(h) + jax.lax.psum(h, "data"))
    return jax.lax.scan(lambda h, _: (inner(h), None), x, None, length=3)[0]


def with_a_key(x: jax.Array) -> jax.Array:
    def body(key: jax.Array, x: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    specs = (P(), P("data"))
    return jax.shard_map(body, mesh=MESH, in_specs=specs, out_specs=P("data"))(jax.random.key(0), x)


def nested(x: jax.Array) -> jax.Array:
    def outer(x: jax.Array) -> jax.Array:
        return jax.shard_map(
            lambda y: y * jax.lax.psum(y, "model"),
            in_specs=P(None, "model"),
            out_specs=P(None, "model"),
            axis_names={"model"},
        )(jnp.sin(x))

    return jax.shard_map(
        outer, mesh=MESH, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}
    )(x)


PROGRAMS: dict[str, Program] = {
    "collectives": mapped(collectives),
    "collectives, unchecked": mapped(collectives, check_vma=False),
    "loops": mapped(loops),
    "loops, unchecked": mapped(loops, check_vma=False),
    "branches that differ": mapped(other_branches),
    "the same branch": mapped(same_branch),
    "in a scan": in_a_scan,
    "remat": mapped(jax.checkpoint(lambda x: jnp.sin(x) * jax.lax.psum(x, "data"))),
    "a key": with_a_key,
    "nested": nested,
    "equal everywhere": mapped(lambda x: jax.lax.pmean(x, ("data", "model")), P(None)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_jit(name: str) -> None:
    function = PROGRAMS[name]
    watch = test_walk.Watch() if name == "in a scan" else Watch()
    with jax.set_mesh(MESH):
        (got,) = walk(jax.make_jaxpr(function)(X), [X], watch)
        wanted = jax.jit(function)(X)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert "shard_map" not in watch.seen or name == "nested"
    assert watch.moved


@pytest.mark.parametrize("name", ["loops", "the same branch", "in a scan", "remat", "a key"])
def test_equals_jit_in_derivatives(name: str) -> None:
    gradient = jax.grad(lambda x: jnp.sum(PROGRAMS[name](x) ** 2))
    watch = test_walk.Watch() if name == "in a scan" else Watch()
    (got,) = walk(jax.make_jaxpr(gradient)(X), [X], watch)
    np.testing.assert_allclose(got, jax.jit(gradient)(X), rtol=1e-4, atol=1e-5)
    assert "shard_map" not in watch.seen


def test_conditions_that_differ_are_one_operation() -> None:
    watch = Watch()
    walk(jax.make_jaxpr(PROGRAMS["branches that differ"])(X), [X], watch)
    assert watch.seen["cond"] == watch.seen["while"] == 1
    assert not watch.seen["sin"] + watch.seen["cos"]


def test_a_value_is_stacked_over_the_axes_it_differs_on() -> None:
    watch = Watch()
    walk(jax.make_jaxpr(PROGRAMS["equal everywhere"])(X), [X], watch)
    assert watch.moved == [((8, 4), (8, 2, 2)), ((1, 2, 2), (2, 2))]
    watch = Watch()
    walk(jax.make_jaxpr(with_a_key)(X), [X], watch)
    assert ((8, 4), (4, 2, 4)) in watch.moved


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_from_the_context(kind: AxisType) -> None:
    mesh = Mesh(MESH.devices, MESH.axis_names, axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, jax.NamedSharding(mesh, P("data")))
        function: Program = jax.shard_map(
            lambda x: jnp.sin(x) + jax.lax.psum(x, "data"),
            in_specs=P("data"),
            out_specs=P("data"),
        )
        watch = Watch()
        (got,) = walk(jax.make_jaxpr(function)(x), [x], watch)
        np.testing.assert_allclose(got, jax.jit(function)(x), rtol=1e-6)
    assert watch.seen["sin"] == 1
