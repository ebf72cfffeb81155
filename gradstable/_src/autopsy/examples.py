"""Which examples of a batch something concerns."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.core.equations import is_input
from gradstable._src.core.keys import is_key

# More examples than this are not followed: it is not about single ones.
_MOST = 16
# Where this many parts of a batch are all broken, it is not about examples, either.
_ALL = 8


def batch_size(args: Any, axis: int | None) -> int:
    """Return the number of examples, or 0 if the arrays do not agree on one."""
    if axis is None:
        return 0
    sizes = {leaf.shape[axis] for leaf in jax.tree.leaves(args) if has_examples(leaf, axis)}
    return sizes.pop() if len(sizes) == 1 else 0


def has_examples(leaf: Any, axis: int, size: int = 0) -> bool:
    """Whether an array has an axis of examples, and as many."""
    has = is_input(leaf) and not is_key(leaf) and np.ndim(leaf) > axis
    return has and size in (0, np.shape(leaf)[axis])


def named_in(output: Any, size: int) -> tuple[int, ...]:
    """Return the examples with entries that are not finite, if the output has an axis for them."""
    axes = [axis for axis, length in enumerate(np.shape(output)) if length == size]
    if len(axes) != 1 or size < 2:
        return ()
    others = tuple(axis for axis in range(np.ndim(output)) if axis != axes[0])
    return tuple(np.flatnonzero(np.asarray(~jnp.isfinite(output)).any(others)).tolist())


def broken_examples(
    is_sound: Callable[[Sequence[int]], bool], size: int, *, most_runs: int
) -> tuple[int, ...]:
    """Return the examples that break a batch, by bisection.

    Args:
      is_sound: whether loss and gradients are finite for a batch of some examples only.
      size: how many there are.
      most_runs: how often it may be asked; beyond that, none are named.
    """
    runs = 0

    def asked(chosen: Sequence[int]) -> bool:
        nonlocal runs
        runs += 1
        return is_sound(chosen)

    suspects: list[range] = [range(size)]
    while any(len(suspect) > 1 for suspect in suspects):
        halves = [half for suspect in suspects for half in _halves(suspect)]
        if len(halves) > 2 * _MOST or runs + len(halves) > most_runs:
            return ()
        suspects = [half for half in halves if not asked(half)]
        if len(suspects) == len(halves) >= _ALL:
            return ()
    found = [suspect[0] for suspect in suspects]
    rest = [number for number in range(size) if number not in found]
    if not rest or not found or runs + 1 + len(found) > most_runs or not asked(rest):
        return ()
    # A batch of one example can break by itself, as a variance does: not among the others.
    return tuple(number for number in found if not asked([*rest, number]))


def _halves(numbers: range) -> list[range]:
    middle = (len(numbers) + 1) // 2
    return [half for half in (numbers[:middle], numbers[middle:]) if half]
