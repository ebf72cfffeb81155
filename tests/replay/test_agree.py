"""Whether replicas agree, asked by the devices themselves inside a compiled program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstable as gs

MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def copies(values: list[np.ndarray], mesh: Any = MESH, *axes: str) -> jax.Array:
    """Return an array of which each device holds its own value."""
    parts = [jax.device_put(x, d) for x, d in zip(values, mesh.devices.flat, strict=True)]
    sharding = NamedSharding(mesh, P(*axes))
    rows = values[0].shape[0] * (2 if axes else 1)
    return jax.make_array_from_single_device_arrays((rows, *values[0].shape[1:]), sharding, parts)


def with_flip(device: int, *, dtype: str = "f4", bit: int = 0) -> jax.Array:
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    flipped = x.copy()
    flipped.view(f"u{x.itemsize}")[2, 1] ^= np.asarray(1 << bit, f"u{x.itemsize}")
    return copies([flipped if i == device else x for i in range(8)])


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_flipped_bit_in_the_buffer_of_one_device_is_seen(check_vma: bool) -> None:
    @jax.jit
    def agree(tree: Any) -> jax.Array:
        inside = lambda part: gs.sharding.replicas_agree(part, "data")  # noqa: E731
        return jax.shard_map(inside, mesh=MESH, in_specs=P(), out_specs=P(), check_vma=check_vma)(
            tree
        )

    sound = with_flip(-1)
    assert bool(agree({"a": sound, "b": sound}))
    for device in (0, 3, 7):
        for bit in (0, 13, 31):
            assert not bool(agree({"a": sound, "b": with_flip(device, bit=bit)})), (device, bit)


def test_it_is_part_of_a_step_that_asks_now_and_then() -> None:
    @jax.jit
    def step(params: Any, batch: jax.Array, number: jax.Array) -> tuple[Any, jax.Array]:
        def inside(params: Any, batch: jax.Array, number: jax.Array) -> tuple[Any, jax.Array]:
            gradient = jax.lax.pmean(jnp.sum(batch) * params, "data")
            agree = jax.lax.cond(
                number % 4 == 0,
                lambda: gs.sharding.replicas_agree(params, "data"),
                lambda: jnp.asarray(True),
            )
            return params - 0.1 * gradient, agree

        specs = (P(), P("data"), P())
        return jax.shard_map(inside, mesh=MESH, in_specs=specs, out_specs=P())(
            params, batch, number
        )

    batch = jnp.zeros((8, 2))
    params = with_flip(5)
    answers = []
    for number in range(1, 6):
        params, agree = step(params, batch, number)
        answers.append(bool(agree))
    assert answers == [True, True, True, False, True]


def test_parts_along_other_axes_may_differ() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = [x + i % 2 for i in range(8)]  # replicated over data, split over model
    odd = [row.copy() for row in rows]
    odd[6][1, 1] += 1

    def inside(part: jax.Array) -> jax.Array:
        agree = gs.sharding.replicas_agree(part, "data")
        return jax.lax.pmin(agree.astype(jnp.int32), "model") == 1

    agree = jax.jit(jax.shard_map(inside, mesh=GRID, in_specs=P("model"), out_specs=P()))
    assert bool(agree(copies(rows, GRID, "model")))
    assert not bool(agree(copies(odd, GRID, "model")))


def test_several_axes() -> None:
    def inside(part: jax.Array) -> jax.Array:
        return gs.sharding.replicas_agree(part, ("data", "model"))

    agree = jax.jit(jax.shard_map(inside, mesh=GRID, in_specs=P(), out_specs=P()))
    x = np.ones((4, 3), np.float32)
    assert bool(agree(copies([x] * 8, GRID)))
    assert not bool(agree(copies([x + (i == 3) for i in range(8)], GRID)))


def test_a_sum_of_fingerprints_sees_a_change_in_any_part() -> None:
    def inside(part: jax.Array) -> jax.Array:
        return jax.lax.psum(gs.fingerprint(part), "data")

    total = jax.jit(jax.shard_map(inside, mesh=MESH, in_specs=P("data"), out_specs=P()))
    x = jax.device_put(jnp.arange(16.0), NamedSharding(MESH, P("data")))
    assert not np.array_equal(total(x), total(x.at[9].add(1e-3)))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="data"):
        gs.sharding.replicas_agree(jnp.ones(3), "data")
    for wrong in (None, (), 3):
        with pytest.raises(TypeError, match="axis_name must be the name of a mesh axis"):
            gs.sharding.replicas_agree(jnp.ones(3), wrong)  # pyright: ignore[reportArgumentType]
