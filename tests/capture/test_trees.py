"""Any tree of arrays and plain values comes back with the same bits, and nothing is executed."""

import sys
import types
from collections import OrderedDict
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import gradstable as gs
from gradstable._src.capture.trees import Node, decode, encode, stored

NATIVE = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
NARROW = (
    *("bfloat16", "int2", "int4", "uint2", "uint4", "float4_e2m1fn"),
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)


class Pair(NamedTuple):
    left: Any
    right: Any


def there_and_back(tree: Any) -> Any:
    found = encode(tree)
    assert not found.left_out
    arrays = [stored(array) for array in found.arrays]
    return decode(found.node, lambda place: arrays[place[1]])


def same(one: Any, other: Any) -> None:
    """Assert that two trees have the same types, structures, kinds of arrays, and bits."""
    assert type(one) is type(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, (jax.Array, np.ndarray)):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            assert isinstance(b, jax.Array) == isinstance(a, jax.Array)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert type(a) is type(b)
            assert repr(a) == repr(b)


@pytest.mark.parametrize("dtype", [*NATIVE, *NARROW])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_every_dtype_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype in NARROW else dtype)
    bits = np.random.default_rng(0).integers(0, 256, (*shape, kind.itemsize), dtype=np.uint8)
    if dtype in ("bool", "int2", "int4", "uint2", "uint4", "float4_e2m1fn"):
        host = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    else:
        host = bits.reshape(-1).view(kind).reshape(shape)
    same(host, there_and_back(host))
    if kind.itemsize < 8:
        same(jnp.asarray(host), there_and_back(jnp.asarray(host)))
    if not shape:
        same(host[()], there_and_back(host[()]))


def test_containers_and_plain_values() -> None:
    tree = {
        "tuple": (1, 2.5, float("nan"), -0.0, True, None, "text", b"bytes\x00", 1 + 2j, 10**30),
        "list": [np.array(["a", "bcd"]), np.array([b"x"]), np.datetime64("2026-01-01"), [], {}],
        3: {("a", 1): (), None: np.float32(1.5), True: np.zeros((2, 0))},
        "order": {"z": 1, "a": 2},
    }
    back = there_and_back(tree)
    assert list(back["order"]) == ["z", "a"]
    assert repr(back) == repr(tree)


def test_keys_come_back_with_their_kind() -> None:
    for impl in ("threefry2x32", "rbg"):
        keys = jax.random.split(jax.random.key(3, impl=impl), 4)
        back = there_and_back({"key": keys, "old": jax.random.PRNGKey(1)})
        assert back["key"].dtype == keys.dtype
        assert np.array_equal(jax.random.key_data(back["key"]), jax.random.key_data(keys))
        jax.random.normal(back["key"][0])


def test_the_state_of_an_optimizer_comes_back_in_its_types() -> None:
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
    tx = gs.record(gs.rollback(gs.guard(optax.chain(optax.adam(1e-3), optax.add_noise(1, 1, 0)))))
    state = tx.init(params)
    back = there_and_back(state)
    chex.assert_trees_all_equal_structs(back, state)
    same(state, back)


def test_a_named_tuple_that_is_not_loaded_keeps_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    node = encode({"a": Pair(1, 2), "b": Pair(3, 4)}).node
    monkeypatch.delitem(sys.modules, __name__)
    back = decode(node, lambda place: np.zeros(0))
    assert (back["a"].left, back["a"].right) == (1, 2)
    assert type(back["a"]).__name__ == "Pair"
    assert type(back["a"]) is type(back["b"])


def test_nothing_that_a_file_names_is_imported_or_called(monkeypatch: pytest.MonkeyPatch) -> None:
    evil: Any = types.ModuleType("evil")

    class Caller(tuple):
        _fields = ("a",)

        def __new__(cls, *args: Any) -> Any:
            raise AssertionError

    evil.Caller, evil.function = Caller, lambda *_: pytest.fail("called")
    monkeypatch.setitem(sys.modules, "evil", evil)
    one: Node = {"is": "named", "fields": ["a"], "children": [{"is": "int", "value": "1"}]}
    for name in ("Caller", "function", "nowhere", "class", "a b"):
        assert decode({**one, "module": "evil", "name": name}, lambda place: np.zeros(0))[0] == 1
    before = set(sys.modules)
    assert decode({**one, "module": "antigravity", "name": "fly"}, lambda _: np.zeros(0))[0] == 1
    assert set(sys.modules) == before
    with pytest.raises(ValueError, match="unknown kind"):
        decode({"is": "object"}, lambda place: np.zeros(0))


def test_other_nodes_come_back_as_dictionaries() -> None:
    nnx = pytest.importorskip("flax.nnx")
    core = pytest.importorskip("flax.core")
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    back = there_and_back({"nnx": nnx.state(model), "linen": core.freeze({"a": {"b": 1}})})
    assert np.array_equal(back["nnx"]["kernel"], model.kernel.get_value())
    assert back["linen"] == {"a": {"b": 1}}
    assert there_and_back(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


def test_what_cannot_be_stored_is_named_and_left_out() -> None:
    tree = {"x": np.ones(2), "f": [print], "o": np.array([object()]), "d": {object(): 1}}
    found = encode(tree)
    assert found.left_out == [
        "['f'][0] (builtin_function_or_method)", "['o'] (object array)", "['d'] (dict)"
    ]  # fmt: skip
    back = decode(found.node, lambda place: stored(found.arrays[place[1]]))
    assert (back["f"], back["o"], back["d"]) == ([None], None, None)
    assert back["x"].tolist() == [1.0, 1.0]


def test_parts_of_an_array_are_put_together() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    parts = [(0, 0), (0, 3), (2, 0), (2, 3)]
    arrays = [whole[r : r + 2, c : c + 3] for r, c in parts]

    def node(*numbers: int) -> Node:
        found = [{"n": n, "start": list(parts[n]), "shape": [2, 3]} for n in numbers]
        return {"is": "array", "dtype": "float32", "shape": [4, 6], "jax": False, "parts": found}

    def back(*numbers: int) -> Any:
        return decode(node(*numbers), lambda place: arrays[place[1]])

    assert np.array_equal(back(0, 1, 2, 3), whole)
    assert np.array_equal(back(3, 1), whole[:, 3:])
    assert np.array_equal(back(2, 2), whole[2:, :3])
    assert [part.shape for part in back(0, 3)] == [(2, 3), (2, 3)]
