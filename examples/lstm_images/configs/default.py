"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """An LSTM that takes eight steps over an image."""

    steps: int = 600
    """How many steps to train."""
    learning_rate: float = 1e-2
    """The highest rate of the schedule."""
    fault_at: int = 200
    """The step of the fault, for bad-batch and lr-spike (the first step is 1)."""
    explode_factor: float = 15.0
    """How many times too large the initial matrices are, for exploding-init."""
    loss_scale: float = 2.0**19
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.125."""
    workdir: Path = Path("demo-out/lstm_images")
    """Where the records of the runs go."""
    batch_size: int = 64
    """Images per step."""
    held_out: int = 360
    """Images held out for testing."""
    hidden: int = 64
    """Size of the state of the LSTM."""
    eval_every: int = 100
    """Steps between evaluations on the held-out images."""
