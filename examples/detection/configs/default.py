"""The options, and their defaults."""

import dataclasses
from pathlib import Path

from examples.common.config import CommonConfig
from examples.detection.boxes import BoxLoss


@dataclasses.dataclass(frozen=True)
class Config(CommonConfig):
    """A run over scenes that are drawn anew for every batch."""

    steps: int = 1000
    """How many steps to train."""
    explode_factor: float = 5.0
    """How many times too large the first matrices are, for exploding-init: five in a row."""
    workdir: Path = Path("demo-out/detection")
    """Where the records of the runs go."""
    batch_size: int = 64
    """Scenes a step."""
    box_loss: BoxLoss = "smooth-l1"
    """What tells the boxes where they should be."""
    box_weight: float = 2.0
    """Factor of the loss of the box beside the cross entropy of the class."""
    test_copies: int = 2
    """In how many scenes each of the 397 digits of the test is put."""
