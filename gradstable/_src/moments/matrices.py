"""Which axes of a leaf make a matrix: read off shapes and Flax's names, or as one says."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import optax

from gradstable._src.core.units import unit_axes

DimensionNumbers: TypeAlias = (
    optax.contrib.MuonDimensionNumbers | optax.Params | Callable[[Any], Any]
)


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


def numbers_of(name: str, numbers: DimensionNumbers, tree: object) -> list[Any]:
    """Return the dimension numbers, or ``None``, of every leaf of a tree.

    Args:
      name: the argument, for messages.
      numbers: a tree of ``optax.contrib.MuonDimensionNumbers`` and ``None``, or a prefix of one, or
        a function from a tree to such.
      tree: the parameters or gradients; what ``optax.masked`` has taken out is no leaf.

    Raises:
      ValueError: if the trees do not fit.
    """
    given: Any = numbers(tree) if callable(numbers) else numbers
    found: list[Any] = []

    def spread(number: Any, part: Any) -> None:
        found.extend([number] * len(jax.tree.leaves(part)))

    try:
        jax.tree.map(spread, given, tree, is_leaf=_says)
    except ValueError as error:
        msg = f"{name} must be a tree like the parameters, or a prefix of it: {error}"
        raise ValueError(msg) from error
    return found


def said_axes(name: str, numbers: DimensionNumbers, tree: object) -> tuple[Axes, ...]:
    """Return for every leaf which of its axes make a matrix, as one says; else by its shape.

    Raises:
      ValueError: if an axis is none of its leaf's, or both of the inputs and of the outputs.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    rows = zip(leaves, numbers_of(name, numbers, tree), matrix_axes(tree), strict=True)
    return tuple(
        axes if number is None else _said(f"{name}{jax.tree_util.keystr(path)}", number, leaf.ndim)
        for (path, leaf), number, axes in rows
    )


def _says(node: object) -> bool:
    return node is None or isinstance(node, optax.contrib.MuonDimensionNumbers)


def _said(name: str, number: Any, ndim: int) -> Axes:
    parts: list[tuple[int, ...]] = []
    for axes in (number.reduction_axis, number.output_axis):
        each: Sequence[int] = (axes,) if isinstance(axes, int) else tuple(axes)
        parts.append(tuple(axis % ndim if -ndim <= axis < ndim else -1 for axis in each))
    rows, columns = parts
    both = (*rows, *columns)
    if -1 in both or len(set(both)) < len(both) or not (rows and columns):
        msg = (
            f"{name} must name inputs and outputs among the {ndim} axes of the leaf, each axis "
            f"once, got {number}"
        )
        raise ValueError(msg)
    return Axes(tuple(axis for axis in range(ndim) if axis not in both), rows, columns)


def _axes(ndim: int, within: tuple[int, ...]) -> Axes:
    batch = tuple(range(min(within, default=ndim)))
    after = tuple(axis for axis in range(len(batch), ndim) if axis not in within)
    return Axes(batch, within, after) if after else Axes(batch, (), within)
