"""Names of leaves: readable, and as numbers that fit into a state of arrays."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

# What Flax puts around the arrays of its variables. It carries no information.
_SILENT = ("value", "raw_value")
# What can surround the parameters in the tree that is trained, but not in the one that is named.
_AROUND = (("params",), ("model",))
# How many candidates for the name of a leaf are listed.
_SHOWN = 4


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of each leaf, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    # A Flax variable is a node with one child, .value, which carries no information.
    return [jax.tree_util.keystr(path).removesuffix(".value") for path, _ in flat]


def leaf_keys(tree: Any) -> np.ndarray:
    """Return a number for the path of each leaf, int32 ``[L]`` and never 0.

    A state holds arrays only, no names. The number of a leaf does not depend on the other leaves
    of its tree, so it can be found again in a tree with more leaves.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return path_keys([path for path, _ in flat])


def path_keys(paths: Sequence[Sequence[Any]]) -> np.ndarray:
    """Return the same for the paths of leaves, as JAX represents them."""
    return np.asarray([_key(_names(path)) for path in paths], np.int32)


class Namer:
    """Find the names of leaves by the numbers of their paths.

    Args:
      tree: the parameters as the reader has them. Compared with those that the transform saw, there
        can be more of them, in other containers, or one level deeper. ``None``: no names are known.
      keys: the numbers of its leaves, if its own paths have lost some of their names.
    """

    def __init__(self, tree: Any = None, *, keys: Sequence[int] | None = None) -> None:
        self.known = tree is not None
        # The whole path comes first, then other forms that the transform may have seen.
        self._tables: tuple[dict[int, list[str]], ...] = ({}, {}, {})
        flat, _ = jax.tree_util.tree_flatten_with_path(tree)
        own = keys if keys is not None else path_keys([path for path, _ in flat]).tolist()
        for (path, _), shown, key in zip(flat, leaf_paths(tree), own, strict=True):
            names = _names(path)
            self._tables[0].setdefault(key, []).append(shown)
            around = [(*outer, *names) for outer in _AROUND]
            within = [names[start:] for start in range(1, len(names))]
            for table, forms in zip(self._tables[1:], (around, within), strict=True):
                for form in forms:
                    table.setdefault(_key(form), []).append(shown)

    def find(self, key: int) -> list[str]:
        """Return the possible paths of a leaf with this number: usually one, else none or more."""
        found = (table[key] for table in self._tables if key in table)
        return next(found, [])

    def __call__(self, index: int, key: int) -> str:
        """Return the name of a leaf, or what is known about it."""
        if not self.known:
            return f"leaf {index} (pass params to see its name)"
        found = self.find(key)
        if len(found) == 1:
            return found[0] or "the only leaf"
        seen = f"leaf {index} of those that the guard saw"
        if not key:
            return f"{seen} (its name was not recorded)"
        if found:
            more = ", ..." if len(found) > _SHOWN else ""
            return f"{seen} (one of {', '.join(found[:_SHOWN])}{more})"
        return f"{seen} (no leaf of params has its path)"


def find_leaves(keys: Sequence[int], tree: Any) -> list[int]:
    """Return the index of the leaf with each number in a tree; -1 if none or ambiguous."""
    place = {name: index for index, name in enumerate(leaf_paths(tree))}
    namer = Namer(tree)
    found = [namer.find(key) for key in keys]
    return [place[one[0]] if len(one) == 1 else -1 for one in found]


def _names(path: Sequence[Any]) -> tuple[str, ...]:
    if len(path) > 1 and _is_silent(path[-1]):
        path = path[:-1]
    parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
    # The keys of some trees are paths themselves: linear/w, or layer.kernel.
    return tuple(part for key in parts for part in key.replace("/", ".").split(".") if part)


def _is_silent(key: Any) -> bool:
    return getattr(key, "name", None) in _SILENT


def _key(names: Sequence[str]) -> int:
    number = zlib.crc32("/".join(names).encode())
    return int(np.uint32(number or 1).view(np.int32))
