"""The floating-point arrays of a tree of parameters, apart from its other leaves."""

from collections.abc import Sequence
from typing import Any

import jax

from gradstable._src.core.equations import is_input
from gradstable._src.core.numerics import is_inexact
from gradstable._src.core.paths import leaf_paths


class Weights:
    """What a loss is differentiated with respect to.

    Attributes:
      leaves: the arrays, in tree order.
      paths: the path of each.
    """

    def __init__(self, params: Any) -> None:
        self._all, self._structure = jax.tree.flatten(params)
        self._numbers = [
            number for number, leaf in enumerate(self._all) if is_input(leaf) and is_inexact(leaf)
        ]
        paths = leaf_paths(params)
        self.leaves: list[Any] = [self._all[number] for number in self._numbers]
        self.paths = [paths[number] for number in self._numbers]

    def replaced(self, leaves: Sequence[Any]) -> Any:
        """Return the parameters with other arrays in place of these."""
        full = list(self._all)
        for number, leaf in zip(self._numbers, leaves, strict=True):
            full[number] = leaf
        return jax.tree.unflatten(self._structure, full)
