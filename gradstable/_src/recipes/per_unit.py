"""A number for each unit of each leaf, with those of whole leaves in one vector.

For a thousand leaves, a thousand scalars are slow to compile, and each operation on them is a
program of its own. Leaves with several units keep an array each: devices may hold parts of them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstable._src.core.in_one import in_one

# How many numbers are computed in one program.
_TOGETHER = 64


class PerUnit(NamedTuple):
    """Numbers of units.

    Attributes:
      whole: float32 ``[n]``, those of leaves that are one unit, in order.
      others: those of the other leaves, in arrays that broadcast against them.
      shapes: the shape of each leaf's numbers.
    """

    whole: jax.Array
    others: tuple[jax.Array, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def is_whole(self) -> list[bool]:
        """Which leaves are one unit."""
        return [math.prod(shape) == 1 for shape in self.shapes]

    @classmethod
    def of(cls, numbers: Sequence[jax.Array]) -> "PerUnit":
        """Join the numbers of each leaf."""
        single = [one.reshape(()) for one in numbers if one.size == 1]
        return cls(
            jnp.stack(single) if single else jnp.zeros((0,), jnp.float32),
            tuple(one for one in numbers if one.size != 1),
            tuple(one.shape for one in numbers),
        )

    def like(self, numbers: Sequence[jax.Array | float]) -> "PerUnit":
        """Join a number for each leaf, in the places of these."""
        pairs = list(zip(map(jnp.float32, numbers), self.is_whole, strict=True))
        single = [one for one, whole in pairs if whole]
        return self._replace(
            whole=jnp.stack(single) if single else self.whole,
            others=tuple(one for one, whole in pairs if not whole),
        )

    def map(self, function: Callable[..., jax.Array], *more: "PerUnit") -> "PerUnit":
        """Apply a function of numbers to these and others like them."""
        rows = zip(self.others, *(each.others for each in more), strict=True)
        return self._replace(
            whole=function(self.whole, *(each.whole for each in more)),
            others=tuple(function(*row) for row in rows),
        )

    def leaves(self) -> list[jax.Array]:
        """Return the numbers of each leaf."""
        single = [self.whole[place] for place in range(self.whole.size)]
        # Not as slices of the vector, or the program of each leaf would be another one.
        chunks = (single[at : at + _TOGETHER] for at in range(0, len(single), _TOGETHER))
        whole, others = itertools.chain.from_iterable(map(in_one, chunks)), iter(self.others)
        return [
            next(whole).reshape(shape) if is_whole else next(others)
            for shape, is_whole in zip(self.shapes, self.is_whole, strict=True)
        ]
