"""What to train, and how: one case is one recorded run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optax

from benchmarks.illnesses.tasks import STEPS, Task


@dataclass(frozen=True)
class Case:
    """One training run; everything not specified is healthy."""

    task: Task
    tx: optax.GradientTransformation
    steps: int = STEPS
    config: Mapping[str, Any] = field(default_factory=dict)
    first: int = 1  # the first step that is logged
    loss_scale: float = 1.0
    scale_grows_every: int | None = None  # doubled after this many steps, halved by an overflow
    capacity: int = 128
    leaf_every: int = 8
    tells_loss: bool = True
    calls_every: int = 1  # steps between two calls of the log
    closes: bool = True
    taps_every: int = 0  # steps between two measurements of its taps; 0: none


CASES: dict[str, Callable[[int], Case]] = {}


def case(make: Callable[[int], Case]) -> Callable[[int], Case]:
    """Add a case to the table."""
    CASES[make.__name__] = make
    return make


def warm_cosine(peak: float, *, warmup: int = 16, steps: int = STEPS) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end_value=peak / 100)
