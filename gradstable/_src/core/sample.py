"""A few entries of every leaf, to look at parameters and moments without a pass over them."""

import math
from typing import Any

import jax

# One entry in 128 of a large leaf: reads of gradient, update, parameter and second moment together
# stay below a tenth of a word per parameter.
_ONE_IN = 128
# All of a small leaf, and no more of a huge one than a mean needs.
_AT_LEAST, _AT_MOST = 256, 1 << 16
# Odd, so that strides do not line up with heads, gates and other powers of two.
_STRIDE = 3


def sample(tree: Any) -> Any:
    """Return evenly spaced entries along the axes of every leaf.

    XLA fuses slices with the elementwise computations they read, so only these entries are
    computed.
    """
    return jax.tree.map(lambda leaf: leaf[strides(leaf.shape)], tree)


def entries_of(shape: tuple[int, ...], wanted: int) -> tuple[slice, ...]:
    """Return the slices that keep at most this many entries of an array, at least one."""
    return tuple(slice(None, None, step) for step in _steps(shape, max(wanted, 1)))


def sample_sizes(tree: Any) -> tuple[int, ...]:
    """Return how many entries of each leaf ``sample`` keeps, in tree order."""
    return tuple(math.prod(_left(leaf.shape)) for leaf in jax.tree.leaves(tree))


def strides(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the slices that sample an array of this shape."""
    return entries_of(shape, _wanted(shape))


def _left(shape: tuple[int, ...]) -> list[int]:
    steps = _steps(shape, _wanted(shape))
    return [-(-length // step) for length, step in zip(shape, steps, strict=True)]


def _wanted(shape: tuple[int, ...]) -> int:
    return min(max(math.prod(shape) // _ONE_IN, _AT_LEAST), _AT_MOST)


def _steps(shape: tuple[int, ...], wanted: int) -> list[int]:
    steps = [1] * len(shape)

    def left(axis: int) -> int:
        return -(-shape[axis] // steps[axis])

    while math.prod(map(left, range(len(shape)))) > wanted:
        # Thin out the longest axis first.
        steps[max(range(len(shape)), key=left)] *= _STRIDE
    return steps
