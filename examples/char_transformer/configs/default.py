"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """Two blocks on 64 characters of context: 117,000 parameters."""

    steps: int = 800
    """How many steps to train."""
    learning_rate: float = 1e-2
    """The highest rate of the schedule."""
    fault_at: int = 300
    """The step of the fault, for bad-batch and lr-spike (the first step is 1)."""
    explode_factor: float = 3.0
    """How many times too large the initial matrices are, for exploding-init."""
    loss_scale: float = 2.0**18
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.25."""
    workdir: Path = Path("demo-out/char_transformer")
    """Where the records of the runs go."""
    batch_size: int = 16
    """Pieces of text per step."""
    held_out: float = 0.1
    """Fraction of the text, at its end, that is held out for testing."""
    context: int = 64
    """Characters in a piece."""
    features: int = 64
    """Size of a character embedding."""
    heads: int = 4
    """Attention heads per block."""
    layers: int = 2
    """Blocks."""
    z_weight: float = 1e-4
    """Factor of the z-loss, which keeps the logits from drifting; 0 turns it off."""
    eval_every: int = 200
    """Steps between evaluations on the held-out text."""
