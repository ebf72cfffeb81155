"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A short run on handwritten digits."""

    steps: int = 600
    """How many steps to train."""
    workdir: Path = Path("demo-out/linen_mlp")
    """Where the records of the runs go."""
    batch_size: int = 64
    """Images per step."""
    hidden: int = 128
    """Width of both hidden layers."""
    dropout: float = 0.2
    """Fraction of activations dropped in training."""
    loss_scale: float = 2.0**19
    """The fixed loss scale, for fp16: overflows where an entry of the gradient exceeds 0.125."""
