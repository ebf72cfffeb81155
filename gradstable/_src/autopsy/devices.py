"""On which devices of a ``shard_map`` a value is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradstable._src.autopsy.births import is_finite
from gradstable._src.walk.shards import split_over

if TYPE_CHECKING:
    from gradstable._src.autopsy.births import Birth


class Found(NamedTuple):
    """What a device has of the inputs and the output of an equation.

    Attributes:
      inputs: its inputs.
      output: its output.
      shards: the coordinates of the devices whose output is not finite; none if that is all.
    """

    inputs: tuple[Any, ...]
    output: Any
    shards: tuple[dict[str, int], ...]


def on_device(birth: Birth) -> Found:
    """Return what the first device whose output is not finite has; outside, what all have."""
    around = [place.eqn for place in birth.places if place.eqn.primitive.name == "shard_map"]
    if not around:
        return Found(birth.inputs, birth.output, ())
    if birth.eqn is None:  # a constant
        return Found((), birth.output[0], ())
    axes = split_over(around[0], birth.eqn.outvars[birth.number])
    is_broken: list[bool] = [not is_finite(part) for part in birth.output]
    numbers = [number for number, broken in enumerate(is_broken) if broken]
    places = [
        dict(zip(axes, map(int, np.unravel_index(number, tuple(axes.values()))), strict=True))
        for number in numbers
        if axes
    ]

    def part(value: Any, atom: Any) -> Any:
        own = split_over(around[0], atom)
        at = tuple(places[0].get(axis, 0) if places else 0 for axis in own)
        return value[int(np.ravel_multi_index(at, tuple(own.values()))) if own else 0]

    inputs = tuple(map(part, birth.inputs, birth.eqn.invars))
    shards = tuple(places) if len(numbers) < len(is_broken) else ()
    return Found(inputs, birth.output[numbers[0]], shards)
