"""Compare trees by path, and name the leaf that differs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# How much two orders of the same few float32 operations can differ.
_ROUNDING = {"rtol": 2e-5, "atol": 1e-6}


def require(holds: object, message: str) -> None:
    """Raise ``AssertionError`` unless a condition holds, even if ``python -O`` drops asserts."""
    if not holds:
        raise AssertionError(message)


def describe(leaf: object) -> str:
    """Return dtype and shape of a leaf, as in ``float32[3, 4]``, and whether its type is weak."""
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, np.ndarray)):
        weak = " of weak type" if getattr(leaf, "weak_type", False) else ""
        return f"{leaf.dtype}{list(leaf.shape)}{weak}"
    return f"a Python {type(leaf).__name__}, not an array"


def by_path(tree: object) -> dict[str, Any]:
    """Return the leaves of a tree by their path, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def require_same_types(actual: object, expected: object, *, name: str, when: str) -> None:
    """Require that two trees agree in structure and in the type of every leaf.

    Args:
      actual: tree of arrays, or of ``jax.ShapeDtypeStruct``.
      expected: the tree that it should be like.
      name: what the trees are, as in "state".
      when: when ``actual`` arose, as in "after an eager update".

    Raises:
      AssertionError: with the path of every leaf that differs.
    """
    new, old = by_path(actual), by_path(expected)
    faults = [f"{name}{path} is new" for path in new if path not in old]
    faults += [f"{name}{path} is missing" for path in old if path not in new]
    faults += [
        f"{name}{path} was {describe(old[path])}, and is {describe(new[path])}"
        for path in new
        if path in old and describe(new[path]) != describe(old[path])
    ]
    structures = jax.tree.structure(actual), jax.tree.structure(expected)
    if not faults and structures[0] != structures[1]:
        faults = [f"{name} was {structures[1]}, and is {structures[0]}"]
    require(not faults, f"{when}: " + "; ".join(faults))


def require_close(actual: object, expected: object, *, name: str, when: str) -> None:
    """Require that two trees have the same types, and the same numbers up to rounding."""
    require_same_types(actual, expected, name=name, when=when)
    old = by_path(expected)
    for path, leaf in by_path(actual).items():
        new_values, old_values = _values(leaf), _values(old[path])
        if new_values.dtype.kind in "biu":
            same = np.array_equal(new_values, old_values)
        else:
            same = np.allclose(new_values, old_values, **_ROUNDING, equal_nan=True)
        require(same, f"{when}: {name}{path} should be {old_values}, and is {new_values}")


def require_same_bits(actual: object, expected: object, *, name: str, when: str) -> None:
    """Require that two trees have the same types and are equal bit by bit."""
    require_same_types(actual, expected, name=name, when=when)
    old = by_path(expected)
    for path, leaf in by_path(actual).items():
        new_values, old_values = np.asarray(as_data(leaf)), np.asarray(as_data(old[path]))
        same = new_values.tobytes() == old_values.tobytes()
        require(same, f"{when}: {name}{path} should be {old_values}, and is {new_values}")


def require_finite(tree: object, *, name: str, when: str) -> None:
    """Require that no entry of a tree of arrays is NaN or infinite."""
    for path, leaf in by_path(tree).items():
        require(np.all(np.isfinite(_values(leaf))), f"{when}: {name}{path} is {leaf}")


def as_data(leaf: Any) -> jax.Array:
    """Return an array of plain numbers, even for a key of ``jax.random``."""
    array = jnp.asarray(leaf)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(array)
    return array


def _values(leaf: Any) -> np.ndarray:
    values = np.asarray(as_data(leaf))
    # NumPy knows no bfloat16, and compares float16 in float16.
    narrow = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize < 4
    return values.astype(np.float32) if narrow else values
