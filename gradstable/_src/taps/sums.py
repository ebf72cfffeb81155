"""Statistics that add up: what one call of a tap leaves is added to what the others leave.

The cotangents of a value that is used several times are added, in a scan as everywhere. So each
statistic is a sum. Squares and fourth powers of all float32 numbers do not fit into float32: they
are divided by a power of two and kept in the column of that power. A maximum is not a sum, but the
24th root of a sum of 24th powers is close to one, and equal to it if there is only one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

# A row: what is counted, the sum of the maxima, and for each range of the maximum of a call its
# 24th power, the sum of squares and the sum of fourth powers.
CALLS, RUNS, ENTRIES, ZEROS, SATURATED, NOT_FINITE, LARGEST = range(7)
# A range of maxima has 4 powers of two, so that a 24th power is below 2**96.
POWER = 24
_OCTAVES, _LOWEST = 4, -124
MAX_SCALES = np.float32(2.0) ** np.arange(_LOWEST, 128, _OCTAVES, dtype=np.float32)
# A range of sums has 16, so that a fourth power is below 2**64.
_SUM_OCTAVES, _SUM_LOWEST = 16, -112
SUM_SCALES = np.float32(2.0) ** np.arange(_SUM_LOWEST, 128, _SUM_OCTAVES, dtype=np.float32)

_COUNTED = 7
POWERS = slice(_COUNTED, _COUNTED + len(MAX_SCALES))
SQUARES = slice(POWERS.stop, POWERS.stop + len(SUM_SCALES))
FOURTHS = slice(SQUARES.stop, SQUARES.stop + len(SUM_SCALES))
WIDTH = FOURTHS.stop


@partial(jax.jit, static_argnames=("axis", "saturated_at", "names"))  # traced once for a shape
def row_of(
    x: jax.Array, *, axis: int | None, saturated_at: float, names: frozenset[str]
) -> jax.Array:
    """Return the statistics of one call.

    Args:
      x: floating-point numbers.
      axis: the axis of heads, counted from the end, each of which has its own row; ``None``: one.
      saturated_at: the absolute value from which on an entry counts as saturated.
      names: mesh axes over whose devices the entries are spread.

    Returns:
      float32 ``[WIDTH]`` or ``[heads, WIDTH]``.
    """
    values, axes = x.astype(jnp.float32), _others(x, axis)
    finite = jnp.isfinite(values)
    sizes = jnp.abs(jnp.where(finite, values, jnp.zeros_like(values)))
    largest = _largest(sizes, axes, names)
    counts = [sizes >= np.float32(saturated_at), ~finite]
    saturated, not_finite = (_total(_count(one, axes), names) for one in counts)
    zeros = _total(_count(values == 0.0, axes), names)
    entries = _entries(x, axes, names) - not_finite
    scaled = sizes * jnp.expand_dims(_inverse(_range_of_sums(largest)), axes)
    squares = scaled * scaled
    sums = [_total(jnp.sum(one, axes), names) for one in (squares, squares * squares)]
    return _joined([entries, zeros, saturated, not_finite], largest, sums)


@partial(jax.jit, static_argnames=("axis", "names"))
def logits_row_of(x: jax.Array, *, axis: int, names: frozenset[str]) -> jax.Array:
    """Return the same for attention logits, of which only the largest is known, at least 0.

    A logit of ``-inf`` is masked, and so may be any other that is far below zero: neither
    is counted.
    """
    values, axes = x.astype(jnp.float32), _others(x, axis)
    broken = jnp.isnan(values) | (values == jnp.inf)
    largest = _largest(jnp.where(broken, jnp.zeros_like(values), values), axes, names)
    not_finite = _total(_count(broken, axes), names)
    entries = _entries(x, axes, names) - not_finite
    nothing = jnp.zeros_like(largest)
    return _joined([entries, nothing, nothing, not_finite], largest, [nothing, nothing])


def _joined(counts: list[jax.Array], largest: jax.Array, sums: list[jax.Array]) -> jax.Array:
    """Return a row: one call, its counts, its maximum, and its sums in the column of its range."""
    one = jnp.ones_like(largest)
    counted = jnp.stack([one, one, *counts, largest], axis=-1)
    spread = [_at(_range_of_sums(largest), len(SUM_SCALES), each) for each in sums]
    return jnp.concatenate([counted, _powers(largest), *spread], axis=-1)


def _at(index: jax.Array, columns: int, number: jax.Array) -> jax.Array:
    """Return this many columns that are zero except for a number in one of them."""
    here = index[..., None] == np.arange(columns)
    return jnp.where(here, number[..., None], jnp.zeros_like(number)[..., None])


def _powers(largest: jax.Array) -> jax.Array:
    """Return the 24th power of the maximum, scaled, in the column of its range."""
    index = _range(largest, _LOWEST, _OCTAVES, len(MAX_SCALES))
    scale = jnp.asarray(1 / MAX_SCALES)[index]
    # Never below its range: a maximum is not underestimated, not even a subnormal one.
    third = jnp.maximum(largest * scale, jnp.ones_like(largest)) ** 3
    power = jnp.where(largest > 0.0, third**8, jnp.zeros_like(third))
    return _at(index, len(MAX_SCALES), power)


def _range_of_sums(largest: jax.Array) -> jax.Array:
    return _range(largest, _SUM_LOWEST, _SUM_OCTAVES, len(SUM_SCALES))


def _inverse(index: jax.Array) -> jax.Array:
    return jnp.asarray(1 / SUM_SCALES)[index]


def _range(largest: jax.Array, lowest: int, octaves: int, number: int) -> jax.Array:
    """Return the index of the range that contains a number >= 0."""
    exponent = jnp.frexp(largest)[1] - 1
    return jnp.clip((exponent - lowest) // octaves, 0, number - 1)


def _others(x: jax.Array, axis: int | None) -> tuple[int, ...]:
    """Return all axes except one."""
    return tuple(dim for dim in range(x.ndim) if axis is None or dim != x.ndim + axis)


def _entries(x: jax.Array, axes: tuple[int, ...], names: frozenset[str]) -> jax.Array:
    devices = int(np.prod([jax.lax.axis_size(name) for name in names], dtype=np.int64))
    number = devices * int(np.prod([x.shape[dim] for dim in axes], dtype=np.int64))
    kept = tuple(size for dim, size in enumerate(x.shape) if dim not in axes)
    return jnp.full(kept, number, jnp.float32)


def _largest(sizes: jax.Array, axes: tuple[int, ...], names: frozenset[str]) -> jax.Array:
    largest = jnp.max(sizes, axes, initial=0.0)
    return jax.lax.pmax(largest, tuple(sorted(names))) if names else largest


def _count(flags: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    # Exact up to 2**31 entries; float32 would stop counting at 2**24.
    return jnp.sum(flags, axes, dtype=jnp.int32).astype(jnp.float32)


def _total(sums: jax.Array, names: frozenset[str]) -> jax.Array:
    return jax.lax.psum(sums, tuple(sorted(names))) if names else sums
