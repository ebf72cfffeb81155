"""The options that all examples share."""

import dataclasses
from pathlib import Path
from typing import Literal

from examples.common.faults import Fault


@dataclasses.dataclass(frozen=True)
class CommonConfig:
    """Options of every example; each adds its own fields and sets its own defaults."""

    seed: int = 0
    """Seed for the data, the order of batches, the initial parameters, and dropout."""
    steps: int = 1000
    """How many steps to train."""
    learning_rate: float = 3e-3
    """The highest rate of the schedule."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, times the learning rate."""
    fault: Fault = "none"
    """The fault to inject."""
    fault_at: int = 200
    """The step of the fault, for bad-batch and lr-spike (the first step is 1)."""
    explode_factor: float = 5.0
    """How many times too large the initial matrices are, for exploding-init."""
    loss_scale: float = 2.0**16
    """The fixed loss scale, for fp16; too high on purpose where entries exceed 65504 over it."""
    optimizer: Literal["bare", "ours", "both"] = "both"
    """Which of the two to train."""
    workdir: Path = Path("demo-out/examples")
    """Where the records of the runs go."""
