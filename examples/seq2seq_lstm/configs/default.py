"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """Sums of two numbers, of up to two digits each."""

    steps: int = 1500
    """How many steps to train."""
    learning_rate: float = 1e-2
    """The highest rate of the schedule."""
    fault_at: int = 500
    """The step of the fault, for bad-batch and lr-spike (the first step is 1)."""
    loss_scale: float = 220_000.0
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.3."""
    workdir: Path = Path("demo-out/seq2seq_lstm")
    """Where the records of the runs go."""
    batch_size: int = 128
    """Problems per step."""
    digits: int = 2
    """Maximum number of digits of a number."""
    held_out: int = 500
    """Pairs of numbers, in either order, held out for testing."""
    features: int = 16
    """Size of a character embedding."""
    hidden: int = 128
    """Size of the state of each LSTM."""
    eval_every: int = 200
    """Steps between evaluations on the held-out sums."""
