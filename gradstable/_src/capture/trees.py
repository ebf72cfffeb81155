"""Trees as JSON and plain arrays, without pickle: nothing in a file is executed when it is read.

A node of a tree becomes a JSON object. ``is`` says what it is:

| ``is`` | a tree node | comes back as |
|---|---|---|
| ``none``, ``bool``, ``int``, ``float``, ``complex``, ``str`` | a Python value | the same |
| ``bytes`` | bytes | the same |
| ``array``, ``scalar`` | an array or scalar of JAX or NumPy | the same, of the same kind |
| ``key`` | an array of random keys | the same |
| ``dict``, ``list``, ``tuple`` | containers | the same |
| ``named`` | a named tuple | its class if it is loaded, else one with the same fields |
| ``node`` | any other node that JAX knows | a dictionary |
| ``left out`` | anything else | ``None`` |
"""

import collections
import functools
import json
import keyword
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.keys import is_key

_PLAIN = {"bool": bool, "int": int, "float": float, "complex": complex, "str": str}
# What comes with an array in a file, or with a file, at most.
_HEADERS = 512
# What NumPy writes by itself.
_NATIVE = "biufcSUmM"

Node = dict[str, Any]
Place = tuple[str, int]  # the file, and the number of the array in it


class Encoded(NamedTuple):
    """A tree, in two parts.

    Attributes:
      node: the structure, as JSON data.
      arrays: the arrays, not yet fetched from the device.
      left_out: what could not be stored: its path and type.
    """

    node: Node
    arrays: list[Any]
    left_out: list[str]

    @property
    def nbytes(self) -> int:
        """How many bytes the files take at most."""
        arrays = sum(int(array.nbytes) + _HEADERS for array in self.arrays)
        return arrays + len(json.dumps(self.node)) + _HEADERS


def encode(tree: Any) -> Encoded:
    """Return the structure and the arrays of a tree; of arrays on other hosts, the parts here."""
    found = Encoded({}, [], [])
    return found._replace(node=_encode(tree, "", found))


def _encode(node: Any, path: str, found: Encoded) -> Node:
    if hasattr(node, "get_value"):  # a variable of Flax
        node = node.get_value()
    if node is None:
        return {"is": "none"}
    if type(node) in _PLAIN.values():
        value = node if isinstance(node, (bool, str)) else repr(node)
        return {"is": type(node).__name__, "value": value}
    if isinstance(node, bytes):
        return {"is": "bytes", "n": _put(np.frombuffer(node, np.uint8), found)}
    if isinstance(node, (jax.Array, np.ndarray, np.generic)):
        return _array(node, path, found)
    if isinstance(node, dict):
        pairs = [(_key(key), _encode(child, f"{path}[{key!r}]", found)) for key, child
                 in node.items()]  # fmt: skip
        if all(key is not None for key, _ in pairs):
            return {"is": "dict", "items": pairs}
        return _left_out(node, path, found)
    if isinstance(node, (list, tuple)):
        fields = getattr(node, "_fields", None)
        names = (
            [f"[{i}]" for i in range(len(node))] if fields is None else [f".{f}" for f in fields]
        )
        children = [_encode(child, path + name, found) for child, name
                    in zip(node, names, strict=True)]  # fmt: skip
        if fields is None:
            return {"is": "list" if isinstance(node, list) else "tuple", "children": children}
        return {"is": "named", **_class(node), "fields": list(fields), "children": children}
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)
    if len(flat) == 1 and not flat[0][0]:
        return _left_out(node, path, found)
    items = [({"is": "str", "value": jax.tree_util.keystr(keys, simple=True)},
              _encode(child, path + jax.tree_util.keystr(keys), found))
             for keys, child in flat]  # fmt: skip
    return {"is": "node", **_class(node), "items": items}


def _array(array: Any, path: str, found: Encoded) -> Node:
    if isinstance(array, jax.Array) and is_key(array):
        data = _array(jax.random.key_data(array), path, found)
        return {"is": "key", "impl": str(jax.random.key_impl(array)), "data": data}
    if array.dtype.hasobject:
        return _left_out(array, path, found)
    kind = "scalar" if isinstance(array, np.generic) else "array"
    node: Node = {"is": kind, "dtype": array.dtype.name, "shape": list(array.shape)}
    node["jax"] = isinstance(array, jax.Array)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        shards = {str(shard.index): shard for shard in array.addressable_shards}
        return {**node, "parts": [_part(shard, array.ndim, found) for shard in shards.values()]}
    return {**node, "n": _put(array, found)}


def _part(shard: Any, ndim: int, found: Encoded) -> Node:
    start = [int(shard.index[axis].start or 0) for axis in range(ndim)]
    return {"n": _put(shard.data, found), "start": start, "shape": list(shard.data.shape)}


def _put(array: Any, found: Encoded) -> int:
    found.arrays.append(array)
    return len(found.arrays) - 1


def _left_out(node: Any, path: str, found: Encoded) -> Node:
    kind = f"{node.dtype} array" if isinstance(node, np.ndarray) else type(node).__name__
    found.left_out.append(f"{path} ({kind})")
    return {"is": "left out", "type": kind}


def _class(node: Any) -> Node:
    return {"module": type(node).__module__, "name": type(node).__qualname__}


def _key(key: Any) -> Node | None:
    """Return a key of a dictionary, or ``None`` if it is not made of plain values."""
    if isinstance(key, tuple):
        parts = [_key(part) for part in key]
        return None if None in parts else {"is": "tuple", "children": parts}
    plain = key is None or type(key) in _PLAIN.values()
    return _encode(key, "", Encoded({}, [], [])) if plain else None


def stored(array: Any) -> np.ndarray:
    """Return an array as it is written: of a dtype that NumPy does not know, its bytes."""
    fetched = np.asarray(array)
    if _is_native(fetched.dtype):
        return fetched
    return np.ascontiguousarray(fetched).reshape(-1).view(np.uint8)


def _is_native(dtype: np.dtype) -> bool:
    return dtype.kind in _NATIVE and dtype.type.__module__ == "numpy"


def decode(node: Node, read: Callable[[Place], np.ndarray]) -> Any:
    """Return the tree.

    Args:
      node: its structure.
      read: function that returns an array, by its place.

    Raises:
      ValueError: if it is not the structure of a tree.
    """
    decoders: Mapping[str, Callable[[], Any]] = {
        "none": lambda: None,
        "left out": lambda: None,
        "bytes": lambda: read(_place(node)).tobytes(),
        "array": lambda: _arrays(node, read),
        "scalar": lambda: _arrays(node, read)[()],
        "key": lambda: jax.random.wrap_key_data(
            jnp.asarray(decode(node["data"], read)), impl=node["impl"]
        ),
        "dict": lambda: _dict(node, read),
        "node": lambda: _dict(node, read),
        "list": lambda: [decode(child, read) for child in node["children"]],
        "tuple": lambda: tuple(decode(child, read) for child in node["children"]),
        "named": lambda: _named(node, [decode(child, read) for child in node["children"]]),
    }
    kind = node["is"]
    if kind in _PLAIN:
        return _PLAIN[kind](node["value"])
    if kind not in decoders:
        msg = f"there is a node of unknown kind {kind!r}"
        raise ValueError(msg)
    return decoders[kind]()


def _dict(node: Node, read: Callable[[Place], np.ndarray]) -> dict[Any, Any]:
    return {decode(key, read): decode(child, read) for key, child in node["items"]}


def _arrays(node: Node, read: Callable[[Place], np.ndarray]) -> Any:
    if "parts" not in node:
        whole = _restored(node, read(_place(node)), node["shape"])
    else:
        whole = _joined(node, read)
    # Without 64 bits JAX would round it.
    if node["jax"] and isinstance(whole, np.ndarray) and jnp.asarray(whole).dtype == whole.dtype:
        return jnp.asarray(whole)
    return whole


def _restored(node: Node, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if array.dtype.name == node["dtype"]:
        return array
    return array.view(_exotic(node["dtype"])).reshape(shape)


def _exotic(name: str) -> np.dtype:
    kind = getattr(jnp, name, None) if name.isidentifier() else None
    try:
        return np.dtype(kind)
    except TypeError:
        msg = f"this version of JAX has no dtype {name!r}"
        raise ValueError(msg) from None


def _joined(node: Node, read: Callable[[Place], np.ndarray]) -> Any:
    """Return the smallest array with all parts, if they fill it; else the parts."""
    unique = {tuple(part["start"]): part for part in node["parts"]}
    starts = np.array(list(unique)).reshape(len(unique), -1)
    raw = [read(_place(part)) for part in unique.values()]
    parts = [_restored(node, array, part["shape"])
             for array, part in zip(raw, unique.values(), strict=True)]  # fmt: skip
    first = starts.min(axis=0)
    ends = np.max([s + p.shape for s, p in zip(starts, parts, strict=True)], axis=0)
    if sum(part.size for part in parts) != np.prod(ends - first):
        return tuple(parts)
    whole = np.empty(tuple(ends - first), parts[0].dtype)
    for start, part in zip(starts - first, parts, strict=True):
        whole[tuple(slice(s, s + n) for s, n in zip(start, part.shape, strict=True))] = part
    return whole


def _place(node: Node) -> Place:
    return str(node.get("file", "")), int(node["n"])


def _named(node: Node, children: list[Any]) -> Any:
    kind = _loaded(node) or _like(node["name"].rpartition(".")[2], tuple(node["fields"]))
    # Not by its own constructor, which could do anything.
    return tuple.__new__(kind, children)


def _loaded(node: Node) -> type[tuple[Any, ...]] | None:
    """Return the class of a named tuple if its module is loaded; nothing is imported."""
    found: Any = sys.modules.get(node["module"])
    for part in node["name"].split("."):
        found = getattr(found, "__dict__", {}).get(part)
    is_named = isinstance(found, type) and issubclass(found, tuple)
    return found if is_named and list(getattr(found, "_fields", ())) == node["fields"] else None


@functools.cache
def _like(name: str, fields: tuple[str, ...]) -> Any:
    good = name.isidentifier() and not keyword.iskeyword(name)
    make: Any = collections.namedtuple
    return make(name if good else "State", fields, rename=True)
