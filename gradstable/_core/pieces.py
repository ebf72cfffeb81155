"""Reduce a large array piece by piece, where XLA would write a copy of all of it first.

A loop reads one piece after the other and adds what it makes of the entries to an array of the size
of a piece; only that is reduced in the end. So a loop needs memory of one piece, and devices that
share an array under ``jit`` talk once and not in every round.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from gradstable._core.explicit import is_split, laid_out
from gradstable._core.layout import names_by_dim

# Into how many pieces an array is cut: each adds 1/256 of it in memory (twice that in float32 where
# entries have two bytes), and to add so few numbers in a row loses at most 2**-17 of a sum.
_PIECES = 256
# What is read in a row has at least as many entries: a cache line of float32.
_IN_A_ROW = 16
# The number of parts that a dimension may be split into under jit, which nothing tells.
_PARTS = (1024, 256, 64, 16, 8, 4, 2, 1)


class _Cut(NamedTuple):
    """How one dimension is cut: it becomes ``(parts, rest)``, and pieces are taken of the rest.

    A device that has one of the parts then has its share of every piece, and nothing is moved.
    """

    dim: int
    parts: int
    rest: int
    width: int

    @property
    def number(self) -> int:
        """How many pieces there are along this dimension."""
        return -(-self.rest // self.width)


def sum_of(
    array: jax.Array, term: Callable[[jax.Array], jax.Array], dims: Sequence[int], *, cut: bool
) -> jax.Array:
    """Return the sum of ``term(entries)`` over some dimensions, in pieces where ``cut``.

    Args:
      array: the array.
      term: an elementwise function.
      dims: the dimensions to sum over.
      cut: whether to go piece by piece. Outside of ``jit`` nothing is fused, and so nothing gained.
    """
    dims = tuple(dims)
    cuts = _cuts(array, dims) if cut and isinstance(array, jax.core.Tracer) else ()
    if math.prod(each.number for each in cuts) < 2:
        return jnp.sum(term(array), axis=dims)
    layout = _Layout.of(array.shape, cuts)
    total = jnp.sum(_loop(array, term, layout), axis=layout.axes_of(dims))
    return total.reshape([size for dim, size in enumerate(array.shape) if dim not in dims])


class _Layout(NamedTuple):
    """The array with each cut dimension as two, and without dimensions of size 1.

    Of these XLA would not know which layout they have, and write a copy in another.
    """

    shape: list[int]
    sizes: list[int]  # of a piece
    from_dim: list[int]  # for each axis
    cut_axes: list[tuple[int, _Cut]]

    @classmethod
    def of(cls, shape: Sequence[int], cuts: Sequence[_Cut]) -> "_Layout":
        """Return the layout of an array with these cuts."""
        of_dim = {each.dim: each for each in cuts}
        layout = cls([], [], [], [])
        for dim, size in enumerate(shape):
            cut = of_dim.get(dim)
            layout._add(dim, size if cut is None else cut.parts)
            if cut is not None:
                layout.cut_axes.append((len(layout.shape), cut))
                layout._add(dim, cut.rest, cut.width)
        return layout

    def _add(self, dim: int, size: int, in_piece: int | None = None) -> None:
        if size > 1:
            self.shape.append(size)
            self.sizes.append(size if in_piece is None else in_piece)
            self.from_dim.append(dim)

    def sharding_of(self, array: jax.Array) -> NamedSharding | None:
        """Return where the array lies on a mesh with explicit axes."""
        if not is_split(array):
            return None
        of_dims = jax.typeof(array).sharding.spec
        rests = {axis for axis, _ in self.cut_axes}
        axes = enumerate(self.from_dim)
        spec = [None if axis in rests else of_dims[dim] for axis, dim in axes]
        return laid_out(array, PartitionSpec(*spec))

    def axes_of(self, dims: Sequence[int]) -> tuple[int, ...]:
        """Return the axes that dimensions of the array have become."""
        return tuple(axis for axis, dim in enumerate(self.from_dim) if dim in dims)


def _loop(array: jax.Array, term: Callable[[jax.Array], jax.Array], layout: _Layout) -> jax.Array:
    whole = lax.reshape(array, layout.shape, out_sharding=layout.sharding_of(array))

    def piece(index: jax.Array) -> jax.Array:
        index = index.astype(jnp.int32)  # under jax_enable_x64 a loop counts in int64
        # Together with the index, so that XLA can do nothing with the whole before the loop: it
        # would convert bfloat16 there, all at once.
        here, index = lax.optimization_barrier((whole, index))
        starts = [jnp.zeros((), jnp.int32)] * len(layout.shape)
        counted: list[jax.Array] = []
        for axis, cut in layout.cut_axes:
            index, place = (
                lax.div(index, jnp.int32(cut.number)),
                lax.rem(index, jnp.int32(cut.number)),
            )
            start = jnp.minimum(place * cut.width, cut.rest - cut.width)
            starts[axis] = start
            if cut.rest % cut.width:
                # The last piece begins earlier, with entries that were counted before.
                own = lax.broadcasted_iota(jnp.int32, layout.sizes, axis) + start
                counted.append(own >= place * cut.width)
        terms = term(lax.dynamic_slice(here, starts, layout.sizes))
        for own in counted:
            terms = jnp.where(own, terms, jnp.zeros((), terms.dtype))
        return terms

    number = math.prod(cut.number for _, cut in layout.cut_axes)
    # Zeros of the type of a piece, which says how they lie on a mesh.
    zeros = lax.full_like(piece(jnp.zeros((), jnp.int32)), 0)
    return lax.fori_loop(0, number, lambda index, total: total + piece(index), zeros)


def _cuts(array: jax.Array, dims: Sequence[int]) -> tuple[_Cut, ...]:
    known = _explicit_parts(array)
    if known is not None:
        return _cuts_with(array.shape, dims, known)
    cuts: tuple[_Cut, ...] = ()
    for parts in _PARTS:
        kept = [math.gcd(size, parts) for size in array.shape]
        cuts = _cuts_with(array.shape, dims, kept)
        if math.prod(each.number for each in cuts) >= _PIECES // 2:
            break
    return cuts


def _explicit_parts(array: jax.Array) -> list[int] | None:
    """Return how many parts each dimension has; ``None`` where types do not tell."""
    if not is_split(array):
        return None
    sharding = jax.typeof(array).sharding
    names = names_by_dim(sharding.spec, array.ndim)
    return [math.prod(sharding.mesh.shape[name] for name in each) for each in names]


def _cuts_with(shape: Sequence[int], dims: Sequence[int], parts: Sequence[int]) -> tuple[_Cut, ...]:
    """Return cuts that leave a dimension whole in as many parts as may be on different devices."""
    cuts: list[_Cut] = []
    wanted = _PIECES
    for dim in sorted(dims):
        rest = shape[dim] // parts[dim]
        least = -(-_IN_A_ROW // max(1, math.prod(shape[dim + 1 :])))
        number = min(wanted, rest // least)
        if number > 1:
            cuts.append(_Cut(dim, parts[dim], rest, -(-rest // number)))
            wanted = -(-wanted // cuts[-1].number)
    return tuple(cuts)
