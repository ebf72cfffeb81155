"""What taps have measured in a run, as columns by the name of the tap."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradstable._src.telemetry.tap_ring import SIDE, TAP_WIDTH
from gradstable._src.telemetry.values import as_number


class TapRecord(NamedTuple):
    """What a tap has measured, or one layer of it; of attention logits, the head with the largest.

    Attributes:
      step: int64 ``[k]``, the steps that were kept; ascending.
      forward: float64 ``[k]`` by name, of the value: ``rms``, ``max_abs``, ``max_factor``,
        ``kurtosis``, ``zeros``, ``saturated``, ``not_finite``, as in ``gs.taps.read``. NaN where it
        did not run.
      gradient: the same of its gradient.
      head: int64 ``[k]``, the head with the largest logit; -1 if there are no heads.
    """

    step: np.ndarray
    forward: Mapping[str, np.ndarray]
    gradient: Mapping[str, np.ndarray]
    head: np.ndarray

    @property
    def of_attention(self) -> bool:
        """Whether these are attention logits."""
        return bool((self.head >= 0).any())


class TapColumns:
    """Rows of taps, added one step at a time, in any order."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, list[float]]] = {}

    def add(self, step: int, taps: Any) -> None:
        """Add the taps of a step; the later one counts if a step occurs twice.

        Raises:
          ValueError, OverflowError: if they are not lists of numbers by name.
        """
        if type(taps) is not dict:
            msg = "taps is not an object"
            raise ValueError(msg)
        try:
            rows = {name: _checked(numbers) for name, numbers in taps.items()}
        except ValueError as error:
            msg = f"taps {error}"
            raise ValueError(msg) from error
        for name, row in rows.items():
            self._rows.setdefault(name, {})[step] = row

    def finish(self) -> dict[str, TapRecord]:
        """Return the columns of each tap."""
        return {name: _columns(rows) for name, rows in self._rows.items()}


def _checked(numbers: Any) -> list[float]:
    if type(numbers) is not list or len(numbers) != TAP_WIDTH:
        msg = f"does not have lists of {TAP_WIDTH} numbers"
        raise ValueError(msg)
    return [as_number(number) for number in numbers]


def _columns(rows: Mapping[int, list[float]]) -> TapRecord:
    steps = sorted(rows)
    table = np.array([rows[step] for step in steps], np.float64)
    sides = table[:, : len(SIDE)], table[:, len(SIDE) : -1]
    forward, gradient = (dict(zip(SIDE, side.T, strict=True)) for side in sides)
    head = np.nan_to_num(table[:, -1], nan=-1.0, posinf=-1.0, neginf=-1.0).astype(np.int64)
    return TapRecord(np.array(steps, np.int64), forward, gradient, head)
