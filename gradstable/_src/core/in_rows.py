"""Sum a function of a large array in two steps, where XLA would write a copy of it first.

On the CPU, XLA hands a sum to a library that accepts products but no ``select`` and no bit cast:
the terms are written to memory before they are added. The library does not accept sums of complex
numbers. XLA compiles those itself, fused with the computation of the terms, and adds one entry
after the other. So the first step sums rows of a few hundred entries as complex numbers, and the
second sums the rows. Nothing is sliced, so devices that share an array under ``jit`` sum their own
rows and communicate once.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from gradstable._src.core.axis_name import names_by_dim
from gradstable._src.core.explicit import is_split, laid_out

# The library gets sums of at least this many entries.
_LIBRARY = 1 << 12
# How many entries are added one after the other. Each sum is rounded to 2**-24 of itself, all
# together to 2**-16 of the last, and its root to half of that. A row needs 4 bytes.
_MOST = 512
_LEAST = 256
# For rows with a longer side XLA would build a tree of sums, and write a copy for that, too.
_SIDE = 32
# Over how many devices a dimension could be split.
_DEVICES = (1024, 256, 64, 16, 8, 4, 2, 1)


def sum_each(
    stack: jax.Array,
    term: Callable[[jax.Array], jax.Array],
    *,
    in_rows: bool,
    large: bool = True,
) -> jax.Array:
    """Return the sum of ``term(entries)`` of each array in a stack.

    Args:
      stack: arrays ``[k, *shape]``.
      term: an elementwise function.
      in_rows: whether to sum in rows on the CPU. Outside ``jit`` nothing is fused, so there is
        nothing to gain.
      large: whether rows must be long. If its sides have no divisors for that, an array is cut.
    """

    def at_once(stack: jax.Array) -> jax.Array:
        return jnp.sum(term(stack), axis=range(1, stack.ndim))

    if not isinstance(stack, jax.core.Tracer) or not stack.size:
        return at_once(stack)
    if stack.size < _LIBRARY:
        if max(stack.shape[1:], default=1) <= _SIDE or is_split(stack):
            return at_once(stack)
        entries = stack.size // stack.shape[0]
        way = partial(_in_short_sides if entries <= 2 * _MOST else _in_any_rows, term=term)
    elif in_rows:
        way = partial(_in_rows if large else _in_any_rows, term=term)
    else:
        return at_once(stack)
    return lax.platform_dependent(stack, cpu=way, default=at_once)


def _in_short_sides(stack: jax.Array, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return the sums of small arrays in one program."""
    sides = [side for size in stack.shape[1:] for side in _sides(size)]
    terms = term(lax.reshape(stack, (stack.shape[0], *sides)))
    return jnp.sum(terms, axis=range(1, terms.ndim))


def _in_any_rows(stack: jax.Array, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    return _sum_rows(stack, term, _rows(stack))


def _in_rows(stack: jax.Array, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    rows = _rows(stack)
    if math.prod(rows) < _LEAST and not is_split(stack):
        dim = max(range(1, stack.ndim), key=lambda dim: stack.shape[dim])
        size = stack.shape[dim] - _left_over(stack.shape[dim], math.prod(rows) // rows[dim])
        if 0 < size < stack.shape[dim]:
            # Hardly any mesh splits a dimension that such rows do not divide.
            first = lax.slice_in_dim(stack, 0, size, axis=dim)
            rest = lax.slice_in_dim(stack, size, stack.shape[dim], axis=dim)
            return _in_rows(first, term) + sum_each(rest, term, in_rows=False)
    return _sum_rows(stack, term, rows)


def _sum_rows(
    stack: jax.Array, term: Callable[[jax.Array], jax.Array], rows: Sequence[int]
) -> jax.Array:
    """Return the same sums, with this many entries of each dimension in a row."""
    # No dimensions of size 1: XLA would not know their layout, and write a copy in another.
    names = names_by_dim(jax.typeof(stack).sharding.spec, stack.ndim)
    shape, spec, in_row = [stack.shape[0]], [names[0] or None], []
    for dim in range(1, stack.ndim):
        long, short = _sides(rows[dim])
        for size, name, is_row in (
            (stack.shape[dim] // rows[dim], names[dim] or None, False),
            (long, None, True),
            (short, None, True),
        ):
            if size > 1:
                in_row += [len(shape)] if is_row else []
                shape.append(size)
                spec.append(name)
    there = laid_out(stack, PartitionSpec(*spec)) if is_split(stack) else None
    terms = term(lax.reshape(stack, shape, out_sharding=there))
    # A sum of complex numbers, which the library does not accept.
    sums = jnp.sum(lax.complex(terms, jnp.zeros_like(terms)), axis=tuple(in_row)).real
    return jnp.sum(sums, axis=range(1, sums.ndim))


def _rows(stack: jax.Array) -> list[int]:
    """Return how many entries of each dimension are in a row, taking adjacent memory first.

    Each dimension keeps as many whole parts as possible: devices may hold one each, which is only
    known from types with explicit axes.
    """
    known, rows = _parts(stack), [1] * stack.ndim
    for parts in _DEVICES:
        wanted = _MOST
        for dim in reversed(range(1, stack.ndim)):
            share = stack.shape[dim] // known[dim]
            most = max(1, min(wanted, share // parts))
            rows[dim] = max(size for size in _sizes(1, most) if share % size == 0)
            wanted //= rows[dim]
        if math.prod(rows) >= _LEAST:
            break
    return rows


def _left_over(size: int, others: int) -> int:
    """Return the fewest entries of a dimension left over by rows with ``others`` entries each."""
    return min(size % row for row in _sizes(max(1, _LEAST // others), _MOST // others))


@cache
def _sizes(least: int, most: int) -> list[int]:
    return [size for size in range(least, most + 1) if max(_sides(size)) <= _SIDE]


def _sides(size: int) -> tuple[int, int]:
    """Return the two factors of a number that are closest to each other."""
    short = max(side for side in range(1, math.isqrt(size) + 1) if size % side == 0)
    return size // short, short


def _parts(stack: jax.Array) -> list[int]:
    """Return over how many devices each dimension is split, according to its type."""
    sharding = jax.typeof(stack).sharding
    names = names_by_dim(sharding.spec, stack.ndim)
    return [math.prod(sharding.mesh.shape[name] for name in each) for each in names]
