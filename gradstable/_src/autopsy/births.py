"""Follow values that are not finite from the equation that made them to the results."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstable._src.autopsy.underflow import underflows
from gradstable._src.walk.shards import aligned

if TYPE_CHECKING:
    from jax.extend.core import JaxprEqn

    from gradstable._src.walk.walk import Place


@dataclasses.dataclass(eq=False, frozen=True)
class Birth:
    """An equation that made a value that is not finite, of values that are.

    Attributes:
      order: how many births there were before.
      eqn: the equation; ``None`` for an argument, or a constant, that was not finite.
      places: what it is inside of.
      inputs: its inputs.
      output: its first output that is not finite, or the argument.
      argument: which argument it is, -1 if it is none.
      number: which output it is.
    """

    order: int
    eqn: JaxprEqn | None
    places: tuple[Place, ...]
    inputs: tuple[Any, ...]
    output: Any
    argument: int = -1
    number: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether this is a constant of the program, as is an infinite mask."""
        return self.eqn is None and self.argument < 0


Births = frozenset[Birth]


class Watch:
    """A visitor that knows, for each array that is not finite, where that began.

    An infinite constant, as in a mask, is no fault, and neither is a value that a select drops. But
    a NaN that is made of such constants is one.
    """

    def __init__(self) -> None:
        # By identity: equations whose result was too small for its dtype.
        self.underflows: set[int] = set()
        self._order = itertools.count()
        # By identity, for as long as the array exists. Once no array depends on a birth, the birth
        # and its own arrays are forgotten.
        self._known: dict[int, tuple[Any, Births]] = {}

    def arguments(self, arrays: Sequence[Any]) -> None:
        """Look at the arguments of the program."""
        for number, array in enumerate(arrays):
            if not is_finite(array):
                self._know(array, self._new(None, (), (), array, argument=number))

    def of(self, arrays: Iterable[Any]) -> Births:
        """Return which births arrays go back to."""
        found = [self._known[id(array)][1] for array in arrays if id(array) in self._known]
        return frozenset[Birth]().union(*found)

    def equation(
        self, eqn: JaxprEqn, inputs: Sequence[Any], outputs: list[Any], places: tuple[Place, ...]
    ) -> list[Any]:
        """Look at the outputs of an equation."""
        if outputs and underflows(eqn, inputs, outputs[0]):
            self.underflows.add(id(eqn))
        bad = [number for number, output in enumerate(outputs) if not is_finite(output)]
        if not bad:
            return outputs
        reached = [x for x in _chosen(eqn, inputs) if not is_finite(x)]
        for constant in reached:
            if id(constant) not in self._known:
                self._know(constant, self._new(None, places, (), constant))
        before = self.of(reached)
        makes_nan = _any_nan(outputs[number] for number in bad) and not _any_nan(reached)
        if not before or (makes_nan and all(birth.is_constant for birth in before)):
            before = self._new(eqn, places, tuple(inputs), outputs[bad[0]], number=bad[0])
        for number in bad:
            self._know(outputs[number], before)
        return outputs

    def slice(self, whole: Any, part: Any, index: int) -> None:
        """Look at the part of an array that a pass of a loop gets."""
        del index
        self.move(whole, part)

    def stack(self, parts: Sequence[Any], whole: Any) -> None:
        """Look at what the passes of a loop have made."""
        births = self.of(parts)
        if births and not is_finite(whole):
            self._know(whole, births)

    def move(self, before: Any, after: Any) -> None:
        """Look at an array that is laid out in another way."""
        if id(before) in self._known and not is_finite(after):
            self._know(after, self._known[id(before)][1])

    def first(self, births: Births) -> Birth | None:
        """Return the first of these that is a fault."""
        faults = [birth for birth in births if not birth.is_constant] or births
        return min(faults, key=lambda birth: birth.order, default=None)

    def _new(self, *args: Any, argument: int = -1, number: int = 0) -> Births:
        return frozenset({Birth(next(self._order), *args, argument=argument, number=number)})

    def _know(self, array: Any, births: Births) -> None:
        key, known = id(array), self._known

        def forget(_: Any) -> None:
            known.pop(key, None)

        try:
            kept = weakref.ref(array, forget)
        except TypeError:  # a number
            kept = array
        known[key] = kept, births


def _chosen(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """Return the inputs that an output can contain: a select drops entries."""
    if eqn.primitive.name != "select_n":
        return list(inputs)
    which, *cases = inputs
    which = aligned(jnp.asarray(which, jnp.int32), cases[0])
    kept = []
    for number, case in enumerate(cases):
        here = jnp.broadcast_to(which == number, jnp.shape(case))
        if not is_finite(jnp.where(here, case, jnp.zeros_like(case))):
            kept.append(case)
    return kept


def is_finite(array: Any) -> bool:
    """Whether all entries of an array are finite numbers."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.inexact):
        return True
    if jax.default_backend() == "cpu":  # NumPy sees the same memory, and calls no compiled program
        return bool(np.isfinite(np.asarray(array)).all())
    return bool(_all_finite(array))


@jax.jit
def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()


def _any_nan(arrays: Iterable[Any]) -> bool:
    return any(bool(np.isnan(np.asarray(array)).any()) for array in arrays)
