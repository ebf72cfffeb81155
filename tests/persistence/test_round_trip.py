"""Every registered state goes through Orbax and msgpack bit for bit, and has no empty array."""

import gc
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

import gradstable as gs
from gradstable._src.testing.compare import require_same_bits
from tests.registry import cases

PARAMS = {
    "kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4).astype(jnp.bfloat16),
    "bias": jnp.linspace(0.5, 1.0, 4),
    "scale": jnp.float32(1.0),
}


TYPES = {case.name: jax.eval_shape(case.tx.init, PARAMS) for case in cases()}


@pytest.fixture(scope="module")
def states() -> dict[str, Any]:
    """Return a state of every transform with bits of all kinds, NaN and infinities among them."""
    rng = np.random.default_rng(0)

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == jnp.bool:
            return jnp.asarray(rng.integers(2, size=leaf.shape, dtype=np.uint8), bool)
        random = rng.bytes(leaf.size * leaf.dtype.itemsize)
        return jnp.asarray(np.frombuffer(random, leaf.dtype).reshape(leaf.shape))

    return jax.tree.map(fill, TYPES)


def test_all_states_go_through_orbax(states: dict[str, Any], tmp_path: Path) -> None:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        TYPES,
    )
    # One checkpoint for all of them: a save has a price of its own.
    ocp.save(tmp_path / "states", states)
    loaded = ocp.load(tmp_path / "states", target)
    require_same_bits(loaded, states, name="states", when="after Orbax")


def test_all_states_go_through_msgpack(states: dict[str, Any]) -> None:
    for name, state in states.items():
        data = flax.serialization.to_bytes(state)
        loaded = flax.serialization.from_bytes(TYPES[name], data)
        require_same_bits(loaded, state, name=name, when="after msgpack")


def test_no_state_has_an_array_without_entries() -> None:
    for name, types in TYPES.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(types)[0]:
            assert leaf.size, f"{name}: {jax.tree_util.keystr(path)}"


# The error of Orbax leaves a coroutine behind.
@pytest.mark.filterwarnings("ignore:coroutine '_create_paths':RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_parameters_without_entries_are_the_one_way_to_empty_arrays(tmp_path: Path) -> None:
    """What is like the parameters is then as empty as they are; nothing else is."""
    params = {"w": jnp.ones(3), "none": jnp.zeros((0, 3))}
    for case in cases():
        for path, leaf in jax.tree_util.tree_flatten_with_path(
            jax.eval_shape(case.tx.init, params)
        )[0]:
            assert leaf.size or "none" in jax.tree_util.keystr(path), case.name
    with pytest.raises(ValueError, match="zero size"):
        ocp.save(tmp_path / "params", params)
    gc.collect()


def test_random_keys_in_states_are_plain_numbers() -> None:
    """Flax's msgpack knows no typed keys."""
    with pytest.raises(TypeError, match="PRNGKey"):
        flax.serialization.to_bytes({"key": jax.random.key(0)})
    for name, types in TYPES.items():
        for leaf in jax.tree.leaves(types):
            assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key), name


@pytest.mark.parametrize("number", [0.1, 3e38, 1e-45, -0.0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "int4", "uint8"])
def test_narrow_types_go_through_msgpack(dtype: str, number: float) -> None:
    array = {"x": jnp.asarray([number, 1.0]).astype(dtype)}
    loaded = flax.serialization.from_bytes(array, flax.serialization.to_bytes(array))
    require_same_bits(loaded, array, name="array", when="after msgpack")


def test_what_the_formats_let_pass_is_found_by_the_schema(tmp_path: Path) -> None:
    """Orbax casts in silence, and Flax takes any array for any other."""
    params = {"w": jnp.ones(3)}
    state = optax.adam(1e-3).init(params)
    wanted = optax.adam(1e-3, mu_dtype=jnp.bfloat16).init(params)
    ocp.save(tmp_path / "state", state)
    assert ocp.load(tmp_path / "state", wanted)[0].mu["w"].dtype == jnp.bfloat16
    loaded = flax.serialization.from_bytes(wanted, flax.serialization.to_bytes(state))
    assert loaded[0].mu["w"].dtype == jnp.float32
    with pytest.raises(ValueError, match=r"has float32\[3\] at \[0\].mu\['w'\], and bfloat16"):
        gs.checkpoints.check_schema(wanted, gs.checkpoints.state_schema(state))
