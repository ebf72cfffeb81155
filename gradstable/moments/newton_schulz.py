"""Bring the singular values of matrices to about 1, without a decomposition."""

import math
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from gradstable._core.explicit import is_split, laid_out
from gradstable._core.units import unit_axes

# Chosen for the largest slope at zero, not for convergence: after five steps singular values
# lie anywhere in [0.68, 1.14] (Jordan, 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Axes(NamedTuple):
    """How a leaf is an array of matrices; every axis is in one of the three."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]  # the inputs
    columns: tuple[int, ...]  # the outputs


def matrix_axes(tree: object) -> tuple[Axes, ...]:
    """Return for every leaf which of its axes make a matrix, by shape and Flax's names.

    Axes within an output row are rows; what stands before them counts layers, what stands
    after them outputs: ``(in, out)``, ``(layers, in, out)``, ``(height, width, in, out)``,
    ``(in, heads, head_dim)``. What has no such output (a bias, an embedding) is no matrix, but
    vectors, each of which is a matrix of one row.
    """
    return tuple(
        _axes(leaf.ndim, within)
        for leaf, within in zip(jax.tree.leaves(tree), unit_axes("flax", tree), strict=True)
    )


def is_matrix(axes: Axes) -> bool:
    """Whether a leaf has inputs and outputs."""
    return bool(axes.rows and axes.columns)


def _axes(ndim: int, within: tuple[int, ...]) -> Axes:
    batch = tuple(range(min(within, default=ndim)))
    after = tuple(axis for axis in range(len(batch), ndim) if axis not in within)
    return Axes(batch, within, after) if after else Axes(batch, (), within)


def orthogonalize(
    m: jax.Array, axes: Axes, *, steps: int, eps: ArrayLike, compute_dtype: DTypeLike
) -> jax.Array:
    """Return about ``U V^T`` for each matrix ``U S V^T``; zero for zero, whatever the size.

    No axis is merged with another or moved, so a leaf may be sharded by any of them.
    """
    rows, columns = (math.prod(m.shape[axis] for axis in part) for part in axes[1:])
    short, long = (axes.rows, axes.columns) if rows <= columns else (axes.columns, axes.rows)
    x = _normalize(m, (*short, *long), eps).astype(compute_dtype)
    a, b, c = (jnp.asarray(number, x.dtype) for number in (_A, _B, _C))

    # Subscripts: one letter an axis; those of the short side also with a second and third.
    name = string.ascii_lowercase[: m.ndim]
    one, two, three = _letters(name, short), _upper(name, short), _upper(name, short, shift=1)
    batch = _letters(name, axes.batch)
    renamed = name.translate(str.maketrans(one, two))
    square = _sharding(x, axes.batch, 2 * len(short))

    def product(subscripts: str, first: jax.Array, second: jax.Array, out: Any) -> jax.Array:
        return jnp.einsum(subscripts, first, second, out_sharding=out)

    for _ in range(steps):
        gram = product(f"{name},{renamed}->{batch}{one}{two}", x, x, square)
        squared = product(
            f"{batch}{one}{two},{batch}{two}{three}->{batch}{one}{three}", gram, gram, square
        )
        inner = b * gram + c * squared
        x = a * x + product(
            f"{batch}{one}{two},{renamed}->{name}", inner, x, _sharding(x, range(m.ndim), 0)
        )
    return x.astype(m.dtype)


def _normalize(m: jax.Array, within: tuple[int, ...], eps: ArrayLike) -> jax.Array:
    """Return ``m / (norm(m) + eps)`` for each matrix: no square of it can overflow or vanish."""
    largest = jnp.max(jnp.abs(m), axis=within, keepdims=True, initial=0.0)
    known = largest >= jnp.finfo(m.dtype).tiny
    size = jnp.where(known, largest, jnp.ones_like(largest))
    scaled = m / size
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=within, keepdims=True))
    unit = scaled / (norm + jnp.asarray(eps, m.dtype) / size)
    return jnp.where(known, unit, jnp.zeros_like(unit))


def _letters(name: str, axes: Sequence[int]) -> str:
    return "".join(name[axis] for axis in axes)


def _upper(name: str, axes: Sequence[int], *, shift: int = 0) -> str:
    first = len(name) * shift
    return "".join(string.ascii_uppercase[first + axis] for axis in axes)


def _sharding(x: jax.Array, kept: Sequence[int], whole: int) -> NamedSharding | None:
    """Return the sharding of a product; ``None`` where nothing is sharded explicitly."""
    if not is_split(x):
        return None
    spec = jax.typeof(x).sharding.spec
    return laid_out(x, PartitionSpec(*(spec[axis] for axis in kept), *([None] * whole)))
