"""Compute any number of scalars in one program of XLA's CPU backend.

That backend makes a program of its own for each result, and takes ten milliseconds or more to
compile one, however small: the forty numbers that a guard keeps would take longer than the step of
an optimizer. One operation with many results is one program. The only such operation that accepts
anything is a reduction of several arrays at once: here, of each number with a zero next to it, to
the one of the two that is not zero. Accelerators compute several results in one program anyway.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from gradstable._src.core.manual import varying

Tree = TypeVar("Tree")


def in_one(tree: Tree) -> Tree:
    """Return a tree whose scalars are computed in one program, and are otherwise the same.

    Outside ``jit`` nothing changes. Nor do scalars that differ between the devices of a mesh.
    """
    leaves, structure = jax.tree.flatten(tree)
    # XLA accepts no operation with floating-point numbers of two kinds.
    for kind in ("float32", "float64"):
        places = [index for index, leaf in enumerate(leaves) if _goes_with(kind, leaf)]
        if len(places) > 1:
            for index, leaf in zip(places, _joined([leaves[i] for i in places]), strict=True):
                leaves[index] = leaf
    return jax.tree.unflatten(structure, leaves)


def _goes_with(kind: str, leaf: Any) -> bool:
    if not isinstance(leaf, jax.core.Tracer) or leaf.shape or varying(leaf):
        return False
    other = leaf.dtype in (jnp.int32, jnp.bool_) and kind == "float32"
    return other or leaf.dtype.name == kind


@jax.custom_jvp
def _joined(numbers: list[jax.Array]) -> list[jax.Array]:
    return lax.platform_dependent(*numbers, cpu=_reduced, default=lambda *same: list(same))


@_joined.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _joined(*primals), tangents[0]


def _reduced(*numbers: jax.Array) -> list[jax.Array]:
    zeros = tuple(jnp.zeros((), number.dtype) for number in numbers)
    # Padded, not repeated: XLA would compute an exponential on its own rather than twice.
    pairs = [
        lax.pad(lax.expand_dims(number, (0,)), zero, [(0, 1, 0)])
        for number, zero in zip(numbers, zeros, strict=True)
    ]
    return list(lax.reduce(tuple(pairs), zeros, _not_zero, (0,)))


def _not_zero(these: Sequence[jax.Array], those: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Return of each two numbers the one with a bit set: by no arithmetic, so that all stay."""
    pairs = zip(these, those, strict=True)
    return tuple(lax.select(_bits(one) == 0, other, one) for one, other in pairs)


def _bits(number: jax.Array) -> jax.Array:
    if number.dtype == jnp.bool_:
        return number.astype(jnp.uint8)
    return lax.bitcast_convert_type(number, f"uint{8 * number.dtype.itemsize}")
