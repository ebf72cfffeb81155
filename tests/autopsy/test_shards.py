"""Inside ``shard_map``, the devices are named by their place on the mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import gradstable as gs

MESH = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, size=(8, 4)), jnp.float32)
W = jnp.ones((4, 4))


def loss_of(body: Any, axes: Any = ("data", "model"), **options: Any) -> Any:
    def of_shard(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.pmean(body(w, x), axes)

    specs = (P("model"), P("data", "model"))
    return jax.shard_map(of_shard, mesh=MESH, in_specs=specs, out_specs=P(), **options)


def cause_of(loss: Any, x: jax.Array) -> gs.Cause:
    found = gs.autopsy(loss, W, x)
    assert found.cause is not None
    return found.cause


def test_both_coordinates_where_values_are_split_on_both_axes() -> None:
    cause = cause_of(loss_of(lambda w, x: jnp.mean(jnp.log(x) @ w)), X.at[5, 3].set(-1.0))
    assert cause.operation == "log"
    assert cause.shards == ({"data": 2, "model": 1},)
    assert cause.output.startswith("float32[2,2]")
    assert cause.examples == (5,)


def test_one_coordinate_where_devices_have_the_same_value() -> None:
    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.log(jax.lax.psum(x @ w, "model")))

    cause = cause_of(loss_of(body, "data"), X.at[7].set(-1.0).at[0].set(-1.0))
    assert cause.operation == "log"
    assert cause.shards == ({"data": 0}, {"data": 3})
    assert cause.examples == (0, 7)


def test_no_shard_where_all_are_broken() -> None:
    cause = cause_of(loss_of(lambda w, x: jnp.mean(jnp.log(x) @ w)), -X)
    assert cause.shards == ()
    assert cause.examples == ()
    assert cause.inputs[0].startswith("float32[2,2]")


def test_the_derivative_and_the_pass_of_a_loop_inside() -> None:
    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        def layer(h: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
            return h * jnp.linalg.norm(scale * h @ w, axis=-1, keepdims=True), None  # here

        h, _ = jax.lax.scan(layer, x, jnp.asarray([1.0, 0.5, 0.25]))
        return jnp.mean(h)

    def square(w: jax.Array, x: jax.Array) -> jax.Array:
        return body(w @ jnp.ones((4, 2)), x)

    for options in ({}, {"check_vma": False}):
        cause = cause_of(loss_of(square, **options), X.at[2].set(0.0))
        assert cause.operation == "div"
        assert cause.backward
        assert cause.code.endswith("# here")
        assert cause.iterations == (0,)
        assert {place["data"] for place in cause.shards} == {1}
        assert cause.examples == (2,)


def test_a_shard_map_inside_of_a_loop() -> None:
    inner = jax.shard_map(
        lambda h: jnp.sqrt(h - 1.0), mesh=MESH, in_specs=P("data"), out_specs=P("data")
    )

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        h, _ = jax.lax.scan(lambda h, _: (inner(h @ w), None), x, None, length=3)
        return jnp.mean(h)

    cause = cause_of(loss, (4.0 * X).at[6].set(0.26))
    assert cause.operation == "sqrt"
    assert cause.iterations == (1,)
    assert cause.shards == ({"data": 3},)
    assert cause.examples == (6,)


def test_a_mask_inside_is_not_blamed() -> None:
    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        scores = jnp.where(x > 1.0, x, -jnp.inf)
        return jnp.mean(jax.nn.softmax(jnp.concatenate([scores, x], axis=-1))) + jnp.mean(w)

    found = gs.autopsy(loss_of(body), W, X)
    assert found.cause is None
    assert found.spike is not None
