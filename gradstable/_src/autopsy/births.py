"""Follow values that are not finite from the equation that made them to the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

    from gradstable._src.walk.walk import Place

Births = frozenset[int]


class Birth(NamedTuple):
    """An equation that made a value that is not finite, of values that are.

    Attributes:
      eqn: the equation; ``None`` for an argument, or a constant, that was not finite.
      places: what it is inside of.
      inputs: its inputs.
      output: its first output that is not finite, or the argument.
      argument: which argument it is, -1 if it is none.
      number: which output it is.
    """

    eqn: JaxprEqn | None
    places: tuple[Place, ...]
    inputs: tuple[Any, ...]
    output: Any
    argument: int = -1
    number: int = 0


class Watch:
    """A visitor that knows, for each array that is not finite, where that began.

    An infinite constant, as in a mask, is no fault, and neither is a value that a select drops. But
    a NaN that is made of such constants is one.
    """

    def __init__(self) -> None:
        self.births: list[Birth] = []
        self._constants: set[int] = set()
        # By identity, together with the array, so that no other can take its place.
        self._known: dict[int, tuple[Any, Births]] = {}

    def arguments(self, arrays: Sequence[Any]) -> None:
        """Look at the arguments of the program."""
        for number, array in enumerate(arrays):
            if not is_finite(array):
                self._know(array, self._new(Birth(None, (), (), array, number)))

    def of(self, arrays: Iterable[Any]) -> Births:
        """Return which births arrays go back to."""
        found = [self._known[id(array)][1] for array in arrays if id(array) in self._known]
        return frozenset[int]().union(*found)

    def equation(
        self, eqn: JaxprEqn, inputs: Sequence[Any], outputs: list[Any], places: tuple[Place, ...]
    ) -> list[Any]:
        """Look at the outputs of an equation."""
        bad = [output for output in outputs if not is_finite(output)]
        if not bad:
            return outputs
        reached = [x for x in _chosen(eqn, inputs) if not is_finite(x)]
        for constant in reached:
            if id(constant) not in self._known:
                birth = self._new(Birth(None, places, (), constant))
                self._constants |= birth
                self._know(constant, birth)
        before = self.of(reached)
        makes_nan = _any_nan(bad) and not _any_nan(reached)
        if not before or (before <= self._constants and makes_nan):
            number = [output is bad[0] for output in outputs].index(True)
            before = self._new(Birth(eqn, places, tuple(inputs), bad[0], number=number))
        for output in bad:
            self._know(output, before)
        return outputs

    def slice(self, whole: Any, part: Any, index: int) -> None:
        """Look at the part of an array that a pass of a loop gets."""
        del index
        if id(whole) in self._known and not is_finite(part):
            self._know(part, self._known[id(whole)][1])

    def stack(self, parts: Sequence[Any], whole: Any) -> None:
        """Look at what the passes of a loop have made."""
        if not is_finite(whole):
            self._know(whole, self.of(parts))

    def move(self, before: Any, after: Any) -> None:
        """Look at an array that is laid out in another way."""
        if id(before) in self._known and not is_finite(after):
            self._know(after, self._known[id(before)][1])

    def first(self, births: Births) -> Birth | None:
        """Return the first of these that is a fault."""
        faults = sorted(births - self._constants) or sorted(births)
        return self.births[faults[0]] if faults else None

    def _new(self, birth: Birth) -> Births:
        self.births.append(birth)
        return frozenset({len(self.births) - 1})

    def _know(self, array: Any, births: Births) -> None:
        self._known[id(array)] = array, births


def _chosen(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """Return the inputs that an output can contain: a select drops entries."""
    if eqn.primitive.name != "select_n":
        return list(inputs)
    which, *cases = inputs
    # One number can choose between arrays: of all, or of each device.
    which = jnp.reshape(which, np.shape(which) + (1,) * (np.ndim(cases[0]) - np.ndim(which)))
    kept = []
    for number, case in enumerate(cases):
        here = jnp.broadcast_to(jnp.asarray(which, jnp.int32) == number, jnp.shape(case))
        if not is_finite(jnp.where(here, case, jnp.zeros_like(case))):
            kept.append(case)
    return kept


def is_finite(array: Any) -> bool:
    """Whether all entries of an array are finite numbers."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.inexact):
        return True
    return bool(jnp.isfinite(array).all())


def _any_nan(arrays: Iterable[Any]) -> bool:
    return any(bool(np.isnan(np.asarray(array)).any()) for array in arrays)
