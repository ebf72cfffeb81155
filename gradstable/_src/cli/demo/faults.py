"""The storm: what goes wrong with the data, and when. Gradients are never touched.

A fault changes images, labels or example weights, as a broken sensor or a wrong join of two tables
would; backpropagation then produces the bad gradients.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gradstable._src.cli.demo.data import Batch
from gradstable._src.cli.demo.model import CLASSES

_FAULT = 3  # a stream of random numbers separate from those of the data
_GAIN = 1e4
_WEIGHT = 1e4


class Fault(NamedTuple):
    """Something that is wrong with the batches from ``first`` to ``last``.

    Attributes:
      first: the first bad step (steps are counted from 1).
      last: the last bad step.
      text: what happened to the data, in one clause.
      corrupt: turns a good batch into a bad one, with the given random numbers.
    """

    first: int
    last: int
    text: str
    corrupt: Callable[[Batch, np.random.Generator], Batch]

    @property
    def steps(self) -> range:
        """The bad steps."""
        return range(self.first, self.last + 1)


def _amplify(batch: Batch, rng: np.random.Generator) -> Batch:
    del rng
    return batch._replace(image=batch.image * np.float32(_GAIN))


def _break_one_pixel(batch: Batch, rng: np.random.Generator) -> Batch:
    image = batch.image.copy()
    image[tuple(rng.integers(image.shape))] = np.nan
    return batch._replace(image=image)


def _mislabel(batch: Batch, rng: np.random.Generator) -> Batch:
    # Shift each digit by 1 to 9 (mod 10), so that it is never the right one.
    wrong = (batch.label + rng.integers(1, CLASSES, size=batch.label.shape)) % CLASSES
    return batch._replace(
        label=wrong.astype(batch.label.dtype), weight=batch.weight * np.float32(_WEIGHT)
    )


def _lose_all(batch: Batch, rng: np.random.Generator) -> Batch:
    del rng
    return batch._replace(image=np.full_like(batch.image, np.nan))


STORM: tuple[Fault, ...] = (
    Fault(20, 20, "every pixel is 10,000 times too bright", _amplify),
    Fault(120, 120, "one pixel of one image is NaN", _break_one_pixel),
    Fault(
        220,
        223,
        "every label is wrong and every example weighs 10,000 times too much",
        _mislabel,
    ),
    Fault(320, 327, "every pixel of every image is NaN", _lose_all),
)


def planted(steps: int) -> tuple[Fault, ...]:
    """Return the faults of a run of this many steps, cut off at its end."""
    return tuple(
        fault._replace(last=min(fault.last, steps)) for fault in STORM if fault.first <= steps
    )


def bad_steps(faults: Sequence[Fault]) -> list[int]:
    """Return all bad steps in order."""
    return sorted(step for fault in faults for step in fault.steps)


def plant(batch: Batch, step: int, *, faults: Sequence[Fault], seed: int) -> Batch:
    """Return the batch as it arrives at this step: a pure function of step and seed."""
    for fault in faults:
        if step in fault.steps:
            batch = fault.corrupt(batch, np.random.default_rng([seed, _FAULT, step]))
    return batch
