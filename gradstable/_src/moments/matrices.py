"""Which axes of a leaf make a matrix: read from shapes and Flax names, or specified."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import optax

from gradstable._src.core.units import unit_axes

DimensionNumbers: TypeAlias = (
    optax.contrib.MuonDimensionNumbers | optax.Params | Callable[[Any], Any]
)


class Axes(NamedTuple):
    """How to view a leaf as an array of matrices; every axis is in exactly one field."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]  # the inputs
    columns: tuple[int, ...]  # the outputs


def matrix_axes(tree: object) -> tuple[Axes, ...]:
    """Return which axes of each leaf make a matrix, by shape and Flax names.

    Axes that feed an output are rows; axes before them index layers, and axes after them index
    outputs: ``(in, out)``, ``(layers, in, out)``, ``(height, width, in, out)``,
    ``(in, heads, head_dim)``. A leaf without such outputs (a bias, an embedding) is not a matrix
    but a set of vectors, each of which is a matrix with one row.
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
      numbers: a tree of ``optax.contrib.MuonDimensionNumbers`` and ``None``, a prefix of one, or a
        function from a tree to either.
      tree: the parameters or gradients; leaves that ``optax.masked`` removed are not counted.

    Raises:
      ValueError: if the trees do not match.
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
    """Return which axes of each leaf make a matrix: as specified, or by shape.

    Raises:
      ValueError: if an axis does not exist in its leaf, or is both an input and an output.
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
