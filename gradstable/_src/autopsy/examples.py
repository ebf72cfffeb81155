"""Which examples of a batch something concerns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.equations import is_input
from gradstable._src.core.keys import is_key


def batch_size(args: Any, axis: int | None) -> int:
    """Return the number of examples, or 0 if the arrays do not agree on one."""
    if axis is None:
        return 0
    sizes = {leaf.shape[axis] for leaf in _batched(args, axis)}
    return sizes.pop() if len(sizes) == 1 else 0


def named_in(output: Any, size: int) -> tuple[int, ...]:
    """Return the examples with entries that are not finite, if the output has an axis for them."""
    axes = [axis for axis, length in enumerate(np.shape(output)) if length == size]
    if len(axes) != 1 or size < 2:
        return ()
    others = tuple(axis for axis in range(np.ndim(output)) if axis != axes[0])
    return tuple(np.flatnonzero(np.asarray(~jnp.isfinite(output)).any(others)).tolist())


def broken_examples(
    is_sound: Callable[[Any], bool], args: Any, axis: int, size: int
) -> tuple[int, ...]:
    """Return the examples that are broken on their own, by bisection.

    Args:
      is_sound: whether loss and gradients are finite for arguments with part of the examples.
      args: the arguments.
      axis: the axis of the examples.
      size: how many there are.
    """

    def part(first: int, last: int) -> Any:
        def cut(leaf: Any) -> Any:
            if not _has(leaf, axis):
                return leaf
            return jax.lax.slice_in_dim(jnp.asarray(leaf), first, last, axis=axis)

        return jax.tree.map(cut, args)

    def search(first: int, last: int) -> list[int]:
        if is_sound(part(first, last)):
            return []
        if last - first == 1:
            return [first]
        middle = (first + last) // 2
        return search(first, middle) + search(middle, last)

    return tuple(search(0, size)) if size > 1 else ()


def _batched(args: Any, axis: int) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(args) if _has(leaf, axis)]


def _has(leaf: Any, axis: int) -> bool:
    return is_input(leaf) and not is_key(leaf) and np.ndim(leaf) > axis
