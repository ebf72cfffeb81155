"""A few entries of every leaf: looking at parameters and moments costs no pass over them."""

import math
from typing import Any

import jax

# One entry in 128 of a large leaf: what is read of gradient, update, parameter and second moment
# together stays below a tenth of a word a parameter.
_ONE_IN = 128
# All of a small leaf, and no more of a giant one than a mean needs.
_AT_LEAST, _AT_MOST = 256, 1 << 16
# Odd, so that a step along an axis does not fall in with heads, gates and other powers of two.
_STRIDE = 3


def sample(tree: Any) -> Any:
    """Return every leaf thinned out: evenly spaced entries along its axes.

    Slices of what is computed elementwise are computed for these entries alone (XLA fuses them
    with what they read).
    """
    return jax.tree.map(lambda leaf: leaf[strides(leaf.shape)], tree)


def sample_sizes(tree: Any) -> tuple[int, ...]:
    """Return how many entries ``sample`` leaves of each leaf, in tree order."""
    return tuple(math.prod(_left(leaf.shape)) for leaf in jax.tree.leaves(tree))


def strides(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the slices that thin out an array of this shape."""
    return tuple(slice(None, None, step) for step in _steps(shape))


def _left(shape: tuple[int, ...]) -> list[int]:
    return [-(-length // step) for length, step in zip(shape, _steps(shape), strict=True)]


def _steps(shape: tuple[int, ...]) -> list[int]:
    wanted = min(max(math.prod(shape) // _ONE_IN, _AT_LEAST), _AT_MOST)
    steps = [1] * len(shape)

    def left(axis: int) -> int:
        return -(-shape[axis] // steps[axis])

    while math.prod(map(left, range(len(shape)))) > wanted:
        # The longest axis has the most to spare.
        steps[max(range(len(shape)), key=left)] *= _STRIDE
    return steps
