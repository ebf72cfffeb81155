"""Equal bits have equal hashes, on any device and in any order; one flipped bit does not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradstable as gs
from gradstable._src.replay.fingerprint import fingerprint

RNG = np.random.default_rng(0)
DTYPES = (
    *("float32", "bfloat16", "float16", "float8_e4m3fn", "int32", "int8", "uint16", "int4"),
    *("complex64", "bool"),
)


def drawn(dtype: str, shape: tuple[int, ...] = (5, 7)) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape) * 3.0).astype(dtype)


def number(tree: Any) -> int:
    high, low = np.asarray(jax.jit(gs.fingerprint)(tree)).tolist()
    return (high << 32) | low


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_trees_have_equal_hashes_and_other_trees_others(dtype: str) -> None:
    x = drawn(dtype)
    assert number(x) == number(jnp.array(x))
    changed = x.at[3, 4].set(~x[3, 4] if dtype == "bool" else x[3, 4] + jnp.asarray(1, dtype))
    assert number(x) != number(changed)


@pytest.mark.parametrize(("dtype", "view"), [("float32", "u4"), ("float16", "u2"), ("int8", "u1")])
def test_every_single_flipped_bit_is_seen(dtype: str, view: str) -> None:
    x = np.asarray(drawn(dtype, (4, 3)))
    bits = 8 * x.itemsize
    flips = np.stack([x] * (12 * bits)).view(view)
    for place in range(12 * bits):
        flips[place].reshape(-1)[place // bits] ^= np.asarray(1 << place % bits, view)
    hashes = np.asarray(jax.jit(jax.vmap(gs.fingerprint))(flips.view(dtype)))
    assert len({tuple(one) for one in hashes.tolist()}) == 12 * bits
    assert tuple(np.asarray(gs.fingerprint(x)).tolist()) not in set(map(tuple, hashes.tolist()))


def test_order_and_division_of_entries_count() -> None:
    x, y = drawn("float32"), drawn("float32")
    trees = [
        (x, y),
        (y, x),
        (x.T, y),
        (x[::-1], y),
        (jnp.concatenate([x, y]),),
        (x,),
        (x, y, x[:0]),
    ]
    assert len({number(tree) for tree in trees}) == len(trees)
    assert number(jnp.zeros(3)) != number(-jnp.zeros(3))


def test_keys_count_and_other_leaves_do_not() -> None:
    assert number(jax.random.key(0)) != number(jax.random.key(1))
    assert np.array_equal(
        fingerprint({"a": jnp.ones(2), "b": "x"}), fingerprint({"a": jnp.ones(2)})
    )


def test_float64_is_read_in_full() -> None:
    with jax.enable_x64(True):
        x = jnp.ones(3, jnp.float64)
        assert number(x) != number(x.at[0].add(1e-16 * 2.3))


@pytest.mark.parametrize("spec", [PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_array_has_the_hash_of_the_whole(spec: PartitionSpec, kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    x = drawn("float32", (16, 24))
    with jax.set_mesh(mesh):
        assert number(jax.device_put(x, NamedSharding(mesh, spec))) == number(x)


def test_eager_and_jit_agree() -> None:
    tree = {"w": drawn("float32"), "b": drawn("bfloat16", (3,)), "n": jnp.int32(3)}
    high, low = np.asarray(gs.fingerprint(tree)).tolist()
    assert (high << 32) | low == number(tree)


def on_devices(values: list[np.ndarray], spec: PartitionSpec) -> jax.Array:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    parts = [jax.device_put(x, d) for x, d in zip(values, mesh.devices.flat, strict=True)]
    shape = (8 * values[0].shape[0], *values[0].shape[1:]) if spec else values[0].shape
    return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, spec), parts)


def test_a_flipped_bit_in_the_buffer_of_one_device_is_found() -> None:
    x = RNG.normal(size=(4, 5)).astype("f4")
    flipped = x.copy()
    flipped.view("u4")[2, 3] ^= 1
    sound = on_devices([x] * 8, PartitionSpec())
    broken = on_devices([flipped if i == 5 else x for i in range(8)], PartitionSpec())
    split = on_devices([x + i for i in range(8)], PartitionSpec("x"))
    tree = {"sound": sound, "broken": broken, "split": split, "host": x}
    assert gs.sharding.unequal_replicas({"sound": sound, "split": split}) == {}
    found = gs.sharding.unequal_replicas(tree)
    assert found == {"['broken']": (str(jax.devices()[5]),)}


def test_it_reads_every_entry_once() -> None:
    tree = {str(i): jax.ShapeDtypeStruct((1024, 1024), jnp.float32) for i in range(4)}
    compiled = jax.jit(gs.fingerprint).lower(tree).compile()
    cost: Any = compiled.cost_analysis()
    words = float(cost["bytes accessed"]) / 4 / (4 * 1024 * 1024)
    assert words <= 1.05
    memory: Any = compiled.memory_analysis()
    assert memory.temp_size_in_bytes <= 0.01 * 16 * 2**20
